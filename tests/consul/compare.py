"""Compares a run of the suite (JUnit XML) with the list of expected failures."""

import sys
import xml.etree.ElementTree as tree


def name_of(case):
    """`tests.api.test_kv.TestConsul` + `test_kv` -> `tests/api/test_kv.py::TestConsul::test_kv`."""
    parts = case.get("classname").split(".")
    classes = [part for part in parts if part[:1].isupper() or part == "testQuery"]
    file = "/".join(part for part in parts if part not in classes) + ".py"
    return "::".join([file, *classes, case.get("name")])


def read_expected(file):
    expected = {}
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            name, bar, reason = line.strip().partition(" | ")
            if bar and not line.startswith("#"):
                expected[name] = reason
    return expected


def read_reports(files):
    """Names of passed, failed and skipped tests; passed in one report is passed."""
    passed, failed, skipped = set(), set(), set()
    for file in files:
        for case in tree.parse(file).getroot().iter("testcase"):
            bad = case.find("failure") is not None or case.find("error") is not None
            group = failed if bad else skipped if case.find("skipped") is not None else passed
            group.add(name_of(case))
    return passed, failed - passed, skipped


def main(command, expected_file, *reports):
    expected = read_expected(expected_file)
    passed, failed, skipped = read_reports(reports)
    unexpected = sorted(failed - expected.keys())
    if command == "unexpected":
        print("\n".join(unexpected))
        return 0
    total = len(passed | failed | skipped)
    recovered = sorted(passed & expected.keys())
    missing = sorted(expected.keys() - passed - failed - skipped)
    print(f"py-consul: {len(passed)} of {total} passed, {len(failed)} failed, {len(expected)} failures expected")
    for title, names in [
        ("failed although it is not listed", unexpected),
        ("passed although it is listed as failing", recovered),
        ("listed but not found in the suite", missing),
    ]:
        for name in names:
            print(f"{title}: {name}")
    return 1 if unexpected or recovered or missing or total == 0 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
