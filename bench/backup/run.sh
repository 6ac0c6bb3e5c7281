#!/usr/bin/env bash
# How long a backup, its verification and a restore take, how much memory they need, and what writers feel (BK-7).
set -euo pipefail
cd "$(dirname "$0")"
exec python3 bench.py "$@"
