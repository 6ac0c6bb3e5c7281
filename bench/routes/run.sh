#!/usr/bin/env bash
# The route table alone: memory, look-up and the time of a new snapshot, by number of services (GW-18).
set -euo pipefail
cd "$(dirname "$0")/../.."
out=bench/results/routes.json
# Each size in a process of its own, so that none profits from memory that another one freed.
{
  echo "["
  for services in 100 1000 10000; do
    [ "$services" = 100 ] || echo ","
    cargo run --quiet --profile quick -p portico-gateway --example route_table -- "$services"
  done
  echo "]"
} | tee "$out"
