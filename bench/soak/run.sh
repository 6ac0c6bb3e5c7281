#!/usr/bin/env bash
# Ten minutes of mixed traffic while services come and go: memory, descriptors and tasks must not grow.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 soak.py "$@"
