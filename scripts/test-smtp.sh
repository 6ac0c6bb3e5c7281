#!/usr/bin/env bash
# Mail to a real server (aiosmtpd) over STARTTLS and TLS: who is trusted, what a downgrade meets, when the
# password leaves.
# PORTICO_BINARY names another binary.
set -euo pipefail
cd "$(dirname "$0")/.."

# What cannot run is told; in CI it is a failure.
skip() {
    echo "mail over TLS skipped: $1"
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

cache="${PORTICO_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/portico}/smtp"
wanted=$(sha256sum tests/smtp/requirements.txt | cut -d' ' -f1)
if [ "$(cat "$cache/versions" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$cache"
    mkdir -p "$cache"
    python3 -m venv "$cache/venv" || skip "python3 has no venv module"
    "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/smtp/requirements.txt \
        || skip "aiosmtpd could not be installed"
    echo "$wanted" > "$cache/versions"
fi

exec "$cache/venv/bin/python" tests/smtp/starttls.py
