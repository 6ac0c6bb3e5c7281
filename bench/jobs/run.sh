#!/usr/bin/env bash
# Small jobs a second with SQLite and PostgreSQL, and CPU a job beside the same rows written by hand.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 bench.py "$@"
