#!/usr/bin/env bash
# sqlmap against every list and search parameter of our own API, with the operator's token. By hand, not part of
# `make test`: it takes minutes and looks for what SC-15 and the tests on hostile values exclude by construction.
# PORTICO_BINARY names another binary, LEVEL and RISK are sqlmap's.
set -euo pipefail
cd "$(dirname "$0")/.."

portico=$(realpath "${PORTICO_BINARY:-target/debug/portico}")
version=1.10.10
cache="${PORTICO_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/portico}/sqlmap-$version"
if [ ! -x "$cache/bin/sqlmap" ]; then
    python3 -m venv "$cache"
    "$cache/bin/pip" install --quiet --disable-pip-version-check "sqlmap==$version"
fi

folder=$(mktemp -d)
finish() {
    kill "$house" 2>/dev/null || true
    wait "$house" 2>/dev/null || true
    rm -rf "$folder"
}
cat >"$folder/portico.toml" <<'TOML'
[node]
demo = false
[listen]
http = "127.0.0.1:0"
consul = "127.0.0.1:0"
admin = "127.0.0.1:0"
grpc = "127.0.0.1:0"
internal = "127.0.0.1:0"
[settings]
"identity.password.argon2" = { m_kib = 7168, t = 1, p = 1 }
"identity.limit.password_per_address" = ["1000000/min"]
"identity.limit.account_failures" = "100000/min"
TOML
(cd "$folder" && exec env -u PORTICO_URL -u PORTICO_TOKEN "$portico" --ready-json --data-dir "$folder/data" >"$folder/log" 2>&1) &
house=$!
trap finish EXIT
until url=$(sed -n 's/.*"http":"\([^"]*\)".*/\1/p' "$folder/log" | head -n 1) && [ -n "$url" ]; do
    kill -0 "$house" || { cat "$folder/log"; exit 1; }
    sleep 0.1
done
header=$(cat "$folder/data/operator.token")
# Something to find: a list without rows hides what a condition does.
for name in anna berta carla; do
    curl -fsS -o /dev/null -X POST -H "$header" -H 'content-type: application/json' \
        -d "{\"username\":\"$name\",\"email\":\"$name@example.com\"}" "$url/api/identity/users"
done

found=0
# A path with `*` behind each value that is tried; and a body, where there is one.
look() {
    echo "== $1"
    local body=()
    if [ -n "${2:-}" ]; then body=(--data="$2"); fi
    "$cache/bin/sqlmap" --batch --disable-coloring --flush-session --output-dir="$folder/sqlmap" \
        --level="${LEVEL:-2}" --risk="${RISK:-1}" --technique=BEUST --time-sec=2 --threads=4 --timeout=20 \
        --ignore-code='*' --headers="$header"$'\nContent-Type: application/json' --url="$url$1" "${body[@]}" \
        </dev/null >"$folder/out" 2>&1 || true
    # It takes our 400 for unknown parameters and wrong values for a firewall.
    sed -n 's/.*\(all tested parameters do not appear to be injectable\).*/   \1/p; s/.*\(parameter .* appears to be\)/   \1/p' \
        "$folder/out" | sort -u
    grep -oE 'HTTP error codes detected.*|[0-9]{3} \([A-Za-z ]+\) - [0-9]+ times' "$folder/out" | sed 's/^/   /' || true
    if grep -qE 'identified the following injection|is vulnerable' "$folder/out"; then
        found=1
        cat "$folder/out"
    fi
}
look '/api/identity/users?name=an*&status=active*&role=user*&method=password*&limit=2*'
look '/api/identity/users?email=anna%40example.com*'
look '/api/identity/users?phone=13812345678*'
look '/api/identity/users?created_from=2020-01-01T00:00:00Z*&tenant=default*'
look '/api/identity/users?cursor=x*'
look '/api/identity/sessions?method=password*&tenant=default*'
look '/api/identity/sms/records?provider=aliyun*&status=sent*&phone=13812345678*'
look '/api/identity/api-keys?tenant=default*'
look '/api/registry/services?name=a*&tag=b*&version=1*&state=ready*&zone=z*'
look '/api/registry/reservations?cursor=x*'
look '/api/gateway/requests?service=a*&user=b*'
look '/api/gateway/routes?cursor=x*'
look '/api/identity/login/password' '{"identifier":"anna*","password":"x","tenant":"default*","device":{"platform":"cli"}}'
errors=$(grep -c '"level":"ERROR"' "$folder/log" || true)
echo "sqlmap: $([ "$found" = 0 ] && echo 'nothing found' || echo 'FOUND SOMETHING'); $errors errors in the log of the house"
exit "$found"
