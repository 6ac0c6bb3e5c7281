#!/usr/bin/env bash
# Audited changes a second with and without the chain, the speed of a verification beside bare SHA-256.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 bench.py "$@"
