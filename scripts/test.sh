#!/usr/bin/env bash
# Every test there is. Databases and servers are private, on free ports, and end with the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --package portico --package portico-example-notes
cargo test --workspace --all-targets --no-fail-fast
sdk/test.sh
sdk/test.sh gateway
scripts/test-consul-suite.sh
