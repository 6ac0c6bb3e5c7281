#!/usr/bin/env bash
# The registry beside a real Consul where one is installed: wake-ups, key-value store, heartbeats, memory.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 bench.py "$@"
