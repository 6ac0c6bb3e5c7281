#!/usr/bin/env bash
# Logins, refreshes and token checks: CPU per operation beside the physical floor of each. With `users` as first
# argument: lists of users in a tenant of a million.
set -euo pipefail
cd "$(dirname "$0")"
if [ "${1:-}" = users ]; then
  shift
  exec python3 users.py "$@"
fi
exec python3 bench.py "$@"
