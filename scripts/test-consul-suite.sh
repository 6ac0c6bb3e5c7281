#!/usr/bin/env bash
# Runs py-consul's own test suite, unchanged but for its root conftest.py, against this binary.
# PORTICO_BINARY names another binary. Expected failures are in tests/consul/expected.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

version=1.8.0
sha256=ed9ab0adb335d33ea84f7622f372411f8e288bb09aee5e7632264d28d285a52c
cache="${PORTICO_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/portico}/py-consul-$version"

# What cannot run is told; in CI it is a failure.
skip() {
    echo "py-consul suite skipped: $1"
    if [ -n "${CI:-}" ]; then exit 1; fi
    exit 0
}

command -v python3 >/dev/null || skip "python3 is missing"

if [ -z "${PORTICO_BINARY:-}" ]; then
    cargo build --quiet --package portico --bin portico
    target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    PORTICO_BINARY="$target/debug/portico"
fi
PORTICO_BINARY=$(realpath "$PORTICO_BINARY")
export PORTICO_BINARY

mkdir -p "$cache"
# The environment is made anew when its versions change.
wanted=$(sha256sum tests/consul/requirements.txt | cut -d' ' -f1)
if [ "$(cat "$cache/versions" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$cache/venv" "$cache/versions"
    python3 -m venv "$cache/venv" || skip "python3 has no venv module"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/consul/requirements.txt \
        || skip "the packages could not be installed"
    echo "$wanted" > "$cache/versions"
fi
archive="$cache/py_consul-$version.tar.gz"
if [ ! -f "$archive" ]; then
    "$cache/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
        --dest "$cache" "py-consul==$version" || skip "py-consul could not be downloaded"
fi
echo "$sha256  $archive" | sha256sum --check --quiet

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$archive" -C "$work"
suite="$work/py_consul-$version"
cp tests/consul/conftest.py "$suite/conftest.py"
# Our own test of the settings below portico/settings/, with the same client.
cp tests/consul/test_portico_settings.py "$suite/tests/test_portico_settings.py"

# pytest's own exit code says nothing here: failures are compared with the list.
run() {
    local report=$1
    shift
    (cd "$suite" && "$cache/venv/bin/python" -m pytest -o addopts="" -p no:cacheprovider -q \
        --junit-xml="$work/$report.xml" "$@" >> "$work/log" 2>&1) || true
    if [ ! -s "$work/$report.xml" ]; then
        cat "$work/log"
        exit 1
    fi
}
run first
reports=("$work/first.xml")

# The suite waits for tens of milliseconds where it should wait for something to happen: on a busy machine a
# test may need a second look.
mapfile -t again < <(python3 tests/consul/compare.py unexpected tests/consul/expected.txt "${reports[@]}" | sed '/^$/d')
if [ "${#again[@]}" -gt 0 ] && [ "${#again[@]}" -le 10 ]; then
    printf 'once more: %s\n' "${again[@]}"
    run second "${again[@]}"
    reports+=("$work/second.xml")
fi

if ! python3 tests/consul/compare.py verdict tests/consul/expected.txt "${reports[@]}"; then
    tail -n 200 "$work/log"
    exit 1
fi
