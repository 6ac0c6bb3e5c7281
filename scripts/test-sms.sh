#!/usr/bin/env bash
# The SMS vendors' own Python clients against the stand-ins that check our signers.
set -euo pipefail
cd "$(dirname "$0")/.."

# What cannot run is told; in CI it is a failure.
skip() {
    echo "SMS vendors' clients skipped: $1"
    if [ -n "${CI:-}" ]; then exit 1; fi
    exit 0
}

command -v python3 >/dev/null || skip "python3 is missing"
cargo build --quiet --package portico-sms --example standin --features testing
target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')

cache="${PORTICO_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/portico}/sms"
wanted=$(sha256sum tests/sms/requirements.txt | cut -d' ' -f1)
if [ "$(cat "$cache/versions" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$cache"
    mkdir -p "$cache"
    python3 -m venv "$cache/venv" || skip "python3 has no venv module"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/sms/requirements.txt \
        || skip "the vendors' clients could not be installed"
    echo "$wanted" > "$cache/versions"
fi
exec "$cache/venv/bin/python" tests/sms/vendors.py "$target/debug/examples/standin"
