#!/usr/bin/env bash
# Every test there is. Databases and servers are private, on free ports, and end with the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --package portico
cargo test --workspace --all-targets --no-fail-fast
sdk/test.sh
scripts/test-consul-suite.sh
