"""Audited changes a second with 32 writers with and without the chain, verification, first pages of searches."""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench/jobs"))
from bench import Postgres  # noqa: E402  the same throw-away server


def measure(program, database, url, records, rounds):
    done = subprocess.run([program, url, str(records), str(rounds)], check=True, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    writes = [row for row in rows if row["row"] == "writes"]
    middle = {key: statistics.median(row[key] for row in writes) for key in ("with_chain_per_s", "without_per_s", "ratio")}
    print(f"{database:10} audited changes, 32 writers   {middle['with_chain_per_s']:8.0f}/s  {middle['ratio']:5.2f} x without the chain")
    for row in rows:
        if row["row"] == "verify":
            share = row["sha256_of_900_bytes_per_s"] / row["per_s"]
            print(f"{database:10} verify {row['records']:,} records      {row['per_s']:8.0f}/s  bare SHA-256 is {share:.1f} x as fast")
        if row["row"] == "search":
            print(f"{database:10} first page: {row['filter']:24} {row['us'] / 1000:8.2f} ms  {row['found']} found")
    return [{"database": database, "row": "writes", **middle}] + [
        {"database": database, **row} for row in rows if row["row"] != "writes"
    ]


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--records", type=int, default=50_000, help="records of a round")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--program", help="the built example `throughput`")
    words.add_argument("--only", choices=["sqlite", "postgres"])
    args = words.parse_args()
    program = args.program
    if not program:
        cargo = ["cargo", "build", "--quiet", "--profile", "quick", "-p", "portico-audit", "--example", "throughput"]
        subprocess.run(cargo, check=True, cwd=ROOT)
        program = str(ROOT / "target/quick/examples/throughput")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        if args.only != "postgres":
            url = f"sqlite://{folder}/bench.db"
            results += measure(program, "sqlite", url, args.records, args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        if args.only != "sqlite":
            server = Postgres(folder)
            try:
                results += measure(program, "postgres", server.url, args.records, args.rounds)
            finally:
                server.stop()
    if not args.only and not args.program:
        (ROOT / "bench/results/audit.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
