#!/usr/bin/env bash
# Installs the programs that the tests drive: PostgreSQL, Redis, Prometheus, Python, Node, curl.
# As root on Debian they are installed; anywhere else this says what is missing and fails.
set -euo pipefail

declare -A package=(
  [postgres]=postgresql [redis-server]=redis-server [prometheus]=prometheus
  [python3]=python3 [node]=nodejs [curl]=curl [nginx]=nginx [oathtool]=oathtool [argon2]=argon2
)

have() {
  command -v "$1" >/dev/null 2>&1 && return 0
  [ "$1" = postgres ] && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && return 0
  [ "$1" = nginx ] && [ -x /usr/sbin/nginx ]
}

missing=()
for program in "${!package[@]}"; do
  have "$program" || missing+=("${package[$program]}")
done

# The suite of the PyPI package py-consul needs pytest and its few dependencies in a private environment.
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)

# PyJWT verifies our access tokens as a stranger would.
python3 -c 'import jwt, cryptography' 2>/dev/null \
  || /usr/bin/python3 -c 'import jwt, cryptography' 2>/dev/null \
  || missing+=(python3-jwt python3-cryptography)

[ "${#missing[@]}" -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # The packages start their services by themselves; the tests start private ones.
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "missing programs; please install these packages: ${missing[*]}" >&2
  exit 1
fi
