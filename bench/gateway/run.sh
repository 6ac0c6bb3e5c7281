#!/usr/bin/env bash
# Portico beside nginx and HAProxy: CPU per request, requests per second on one core, p99, memory.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 bench.py "$@"
