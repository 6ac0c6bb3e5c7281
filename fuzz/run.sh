#!/usr/bin/env bash
# Runs fuzz targets on stable Rust: libFuzzer and the compiler's coverage counters, no sanitizer.
# usage: fuzz/run.sh [SECONDS] [TARGET...]
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets < <(basename -s .rs fuzz_targets/*.rs)
fi

# The flags of cargo-fuzz without its sanitizer; all of them are stable.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=16"
# With a target named, the flags are for the targets alone and not for build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
bins=() features=(--no-default-features)
for target in "${targets[@]}"; do
    bins+=(--bin "$target")
    if ! grep -q portico_h1 "fuzz_targets/$target.rs"; then features=(); fi
done
nice cargo build --release --target "$host" "${features[@]}" "${bins[@]}"

found=0
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    seeds=()
    [ -d "seeds/$target" ] && seeds=("seeds/$target")
    if ! nice "target/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="artifacts/$target/" "corpus/$target" "${seeds[@]}" >"artifacts/$target/log" 2>&1; then
        echo "$target: FOUND something, see fuzz/artifacts/$target"
        found=1
    else
        echo "$target: $(grep -E '^(Done|#[0-9]+.*DONE)' "artifacts/$target/log" | tr '\n' ' ')"
    fi
done
exit "$found"
