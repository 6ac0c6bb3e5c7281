#!/usr/bin/env bash
# One of five instances is ten times slower, or fails fast: p99 and shares beside nginx and HAProxy (GW-48);
# and bad plug-ins beside a good one (PL-9).
set -euo pipefail
cd "$(dirname "$0")"
exec python3 bench.py "$@"
