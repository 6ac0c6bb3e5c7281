#!/bin/sh
# Tests of the Python and Node SDKs and of the examples in both languages, without any package from outside.
# The notes example of any other language: NOTES_COMMAND="target/debug/notes" sdk/test.sh example
# All examples behind the real gateway (PORTICO_BIN, NOTES_RUST, default target/debug/…): sdk/test.sh gateway
set -eu
cd "$(dirname "$0")"

example() {
    (cd python/tests && NOTES_COMMAND="${NOTES_COMMAND:-}" python3 -m unittest -q test_example)
}

case "${1:-all}" in
    example) example ;;
    gateway) (cd python/tests && python3 -m unittest -q test_gateway) ;;
    all)
        for program in python3 node; do
            command -v "$program" >/dev/null || { echo "sdk/test.sh: $program is missing" >&2; exit 1; }
        done
        (cd python/tests && python3 -m unittest -q test_sdk)
        node --test --test-reporter=dot node/test/*.test.js
        example
        NOTES_COMMAND="node examples/node/notes.js" example
        ;;
    *) echo "usage: sdk/test.sh [all|example|gateway]" >&2; exit 2 ;;
esac
