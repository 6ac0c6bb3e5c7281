#!/usr/bin/env bash
# Runs the outside suite "cache-tests" (BSD-3-Clause, not part of this repository) through a gateway of its own and
# prints the score, and the peers' beside it where they are installed.
#
#   CACHE_TESTS=/path/to/the/suite tests/cache/run.sh [path of the portico binary]
#
# The directory holds the suite as published on npm (http-cache-tests) or as cloned, with its dependencies installed.
# Nothing is downloaded here. PEERS="nginx varnish haproxy" chooses the peers; empty for none.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
suite=${CACHE_TESTS:?set CACHE_TESTS to the directory of the suite}
binary=${1:-$here/../../target/debug/portico}
peers=${PEERS-nginx varnish haproxy}
work=$(mktemp -d)
chmod 755 "$work"
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

engine=$suite
[ -d "$suite/test-engine" ] && engine=$suite/test-engine
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
await() {
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    echo "nothing listens on port $1" >&2
    return 1
}

origin=$(free_port)
(cd "$suite" && exec env npm_config_protocol=http npm_config_port="$origin" npm_config_base= \
    npm_config_pidfile="$work/pid" npm_package_config_protocol=http npm_package_config_port="$origin" \
    npm_package_config_base= npm_package_config_pidfile="$work/pid" \
    node --no-warnings "$engine/server/server.mjs") >"$work/origin.log" 2>&1 &
pids+=($!)
await "$origin"

score() { # name, port
    (cd "$suite" && env npm_config_base="http://127.0.0.1:$2" npm_config_id= npm_package_config_id= \
        npm_package_config_base= timeout 400 node --no-warnings "$engine/cli.mjs") >"$work/$1.json" 2>"$work/$1.err" || true
    node "$here/score.mjs" "$suite" "$1" "$work/$1.json"
    cp "$work/$1.json" "${OUT:-$work}/$1.json" 2>/dev/null || true
}

# The suite's server fails and hangs up on purpose, and counts what it is asked: no breaker, no second attempts.
cat >"$work/portico.toml" <<'TOML'
[settings]
"gateway.retries.attempts" = 1
"gateway.breaker.failures" = 1000
"gateway.breaker.ratio" = 1.0
"gateway.breaker.min_requests" = 100000
TOML
port=$(free_port)
binary=$(realpath "$binary")
(cd "$work" && exec "$binary" --ready-json --no-demo --listen "127.0.0.1:$port" --consul-listen 127.0.0.1:0 \
    --admin-listen 127.0.0.1:0 --grpc-listen 127.0.0.1:0 --internal-listen 127.0.0.1:0 --data-dir "$work/data") >"$work/portico.log" 2>&1 &
pids+=($!)
await "$port"
token_file=$work/data/operator.token
api() { # method, path, document
    curl -fsS -X "$1" "http://127.0.0.1:$port$2" -H "@$token_file" \
        -H 'content-type: application/json' -d "$3" >/dev/null
}
api POST /api/registry/register \
    "{\"name\":\"cache-tests\",\"version\":\"1.0.0\",\"host\":\"127.0.0.1\",\"port\":$origin,\"default_access\":\"public\",\"forward_credentials\":true}"
for path in test config state; do
    api PUT "/api/gateway/routes/$path" \
        "{\"doc\":{\"path\":{\"prefix\":\"/$path\"},\"target\":{\"service\":{\"name\":\"cache-tests\"}}}}"
done
# What the suite calls optimal is not what is safe by default: everybody may steer the cache, lifetimes are guessed,
# and answers with cookies are kept.
api PUT /api/gateway/cache-rules/suite \
    '{"doc":{"policy":{"mode":"response","heuristic":true,"honour_request":"everyone","store_set_cookie":true}}}'
score portico "$port"

for peer in $peers; do
    port=$(free_port)
    case $peer in
    nginx)
        command -v nginx >/dev/null || continue
        mkdir -p "$work/nginx"
        sed -e "s|@PORT@|$port|; s|@ORIGIN@|$origin|; s|@DIR@|$work/nginx|g" "$here/nginx.conf" >"$work/nginx.conf"
        nginx -e "$work/nginx/error.log" -c "$work/nginx.conf" -g 'daemon off;' &
        ;;
    varnish)
        command -v varnishd >/dev/null || continue
        mkdir -p "$work/varnish"
        sed -e "s|@ORIGIN@|$origin|" "$here/varnish.vcl" >"$work/varnish.vcl"
        varnishd -F -n "$work/varnish" -a "127.0.0.1:$port" -f "$work/varnish.vcl" -T none >"$work/varnish.log" 2>&1 &
        ;;
    haproxy)
        command -v haproxy >/dev/null || continue
        sed -e "s|@PORT@|$port|; s|@ORIGIN@|$origin|" "$here/haproxy.cfg" >"$work/haproxy.cfg"
        haproxy -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
        ;;
    esac
    pids+=($!)
    await "$port"
    score "$peer" "$port"
done
