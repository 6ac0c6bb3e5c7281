#!/usr/bin/env bash
# Logins, refreshes and token checks: CPU per operation beside the physical floor of each.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 bench.py "$@"
