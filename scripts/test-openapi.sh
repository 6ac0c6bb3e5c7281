#!/usr/bin/env bash
# schemathesis against our own OpenAPI document and the real binary: as nobody, as a user, as the operator.
# PORTICO_BINARY names another binary; further arguments go to tests/openapi/run.py (`--examples 200`).
set -euo pipefail
cd "$(dirname "$0")/.."

# What cannot run is told; in CI it is a failure.
skip() {
    echo "OpenAPI tests skipped: $1"
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

cache="${PORTICO_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/portico}/openapi"
wanted=$(sha256sum tests/openapi/requirements.txt | cut -d' ' -f1)
if [ "$(cat "$cache/versions" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$cache"
    mkdir -p "$cache"
    python3 -m venv "$cache/venv" || skip "python3 has no venv module"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/openapi/requirements.txt \
        || skip "schemathesis could not be installed"
    echo "$wanted" > "$cache/versions"
fi
exec "$cache/venv/bin/python" tests/openapi/run.py "$@"
