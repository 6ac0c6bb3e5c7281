#!/usr/bin/env bash
# Installs the programs that the tests drive: PostgreSQL, Redis, Prometheus, Python, Node, curl, and an S3
# server in an environment of its own.
# As root on Debian they are installed; anywhere else this says what is missing and fails.
set -euo pipefail

declare -A package=(
  [postgres]=postgresql [redis-server]=redis-server [prometheus]=prometheus
  [python3]=python3 [node]=nodejs [curl]=curl [nginx]=nginx [oathtool]=oathtool [argon2]=argon2 [openssl]=openssl
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

if [ "${#missing[@]}" -eq 0 ]; then
  :
elif [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # The packages start their services by themselves; the tests start private ones.
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "missing programs; please install these packages: ${missing[*]}" >&2
  exit 1
fi

# The PyPI package moto is the S3 server of the tests of crates/objects. Its environment is made anew when
# its versions change.
cd "$(dirname "$0")/.."
cache="${PORTICO_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/portico}/s3"
wanted=$(sha256sum tests/s3/requirements.txt | cut -d' ' -f1)
if [ "$(cat "$cache/versions" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$cache"
  mkdir -p "$cache"
  python3 -m venv "$cache/venv"
  if "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/s3/requirements.txt; then
    echo "$wanted" > "$cache/versions"
  else
    echo "moto could not be installed: tests against S3 will be skipped" >&2
    [ -z "${CI:-}" ]
  fi
fi
