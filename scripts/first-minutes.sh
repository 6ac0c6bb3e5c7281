#!/usr/bin/env bash
# What a newcomer does first, timed: an empty directory, `portico`, `portico run`, and the printed line typed
# as it stands (FM-5, as far as it goes without a console). Goal 10 s, limit 60 s.
set -euo pipefail
cd "$(dirname "$0")/.."

portico=$(realpath "${PORTICO_BINARY:-target/debug/portico}")
folder=$(mktemp -d)
jobs=()
finish() {
    for job in "${jobs[@]}"; do kill "$job" 2>/dev/null || true; done
    for job in "${jobs[@]}"; do wait "$job" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap finish EXIT
fail() {
    echo "first minutes: $1" >&2
    tail -n 30 "$folder"/*.log >&2 || true
    exit 1
}

# Waits for a line in a file, at most until the limit is reached.
begin=$(date +%s%3N)
await() {
    until grep -q "$1" "$2" 2>/dev/null; do
        (($(date +%s%3N) - begin < 60000)) || fail "no line '$1' within 60 s"
        sleep 0.01
    done
}

mkdir "$folder/house" && cd "$folder/house"
unset PORTICO_URL PORTICO_TOKEN PORTICO_CONFIG

"$portico" >"$folder/portico.log" 2>&1 &
jobs+=($!)
await 'is ready' "$folder/portico.log"
started=$(date +%s%3N)

"$portico" run --name mine -- python3 -m http.server '{port}' >"$folder/run.log" 2>&1 &
jobs+=($!)
await 'is behind the door: ' "$folder/run.log"
line=$(sed -n 's/.*is behind the door: //p' "$folder/run.log" | head -n 1)

answer=$(sh -c "${line/curl/curl -fsS}") || fail "the printed line failed: $line"
grep -q 'Directory listing' <<<"$answer" || fail "not the program's answer: $answer"
end=$(date +%s%3N)

# Without the credential the same call is refused: nobody reaches a program that was not made public.
url=${line##* }
status=$(curl -s -o /dev/null -w '%{http_code}' "$url")
[ "$status" = 401 ] || fail "$status instead of 401 without a credential"
lines=$(sed -n '/ is ready/,/^stop with/p' "$folder/portico.log" | wc -l)
((lines > 1 && lines <= 12)) || fail "the banner has $lines lines instead of at most 12"
((end - begin < 60000)) || fail "$((end - begin)) ms"

echo "first minutes: started in $((started - begin)) ms, own program called through the door after $((end - begin)) ms"
