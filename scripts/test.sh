#!/usr/bin/env bash
# Every test there is. Databases and servers are private, on free ports, and end with the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --package portico --package portico-example-notes
cargo test --workspace --all-targets --no-fail-fast

target=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
export PORTICO_BINARY="$target/debug/portico" PORTICO_BIN="$target/debug/portico" NOTES_RUST="$target/debug/notes"
scripts/first-minutes.sh
sdk/test.sh
sdk/test.sh gateway
scripts/test-grpc.sh
scripts/test-consul-suite.sh
scripts/test-sms.sh
scripts/test-smtp.sh
scripts/test-openapi.sh
