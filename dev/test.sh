#!/usr/bin/env bash
# Runs every test. The last line is "N passed, N failed"; a runner that dies counts as a failure.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0
failed=0
log=$(mktemp)
failures=$(mktemp)
trap 'rm -f "$log" "$failures"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# run NAME COMMAND...: shows and keeps the output; leaves the exit status in $status.
run() {
    printf '\n=== %s\n' "$1"
    shift
    "$@" 2>&1 </dev/null | tee "$log"
    status=${PIPESTATUS[0]}
}

# count PASSED FAILED: a runner that counted no test, or failed without a failed test, is itself a failure.
count() {
    local p=${1:-0} f=${2:-0}
    if [ $((p + f)) -eq 0 ] || { [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; }; then
        f=$((f + 1))
        tail -n 20 "$log" >>"$failures"
    fi
    passed=$((passed + p))
    failed=$((failed + f))
}

# keep AWK-PROGRAM: repeats what it finds in the log at the end, where a person looks first.
keep() { awk "$1" "$log" | cut -c1-400 | head -n 200 >>"$failures"; }

# The sum of the numbers before a word, over all lines that cargo ends a test binary with.
cargo_sum() {
    local number sum=0
    for number in $(sed -n "s/^test result:.* \([0-9]*\) $1;.*/\1/p" "$log"); do sum=$((sum + number)); done
    printf '%d\n' "$sum"
}

rust() {
    run "Rust" cargo test --locked --release --workspace --no-fail-fast
    count "$(cargo_sum passed)" "$(cargo_sum failed)"
    keep '/^error/ || /^test .* FAILED$/; /^---- .* stdout ----$/ { show = 40 } /^failures:$/ { show = 0 } show-- > 0'
}

# For runners whose own last line is "N passed, N failed".
script() {
    run "$1" "$2"
    local line
    line=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$log" | tail -n 1)
    # shellcheck disable=SC2086  # two numbers, or nothing
    count $line
    keep '/^FAIL/ && !/^FAIL in/; /^(FAIL|ERROR) in/ { show = 30 } /^$/ { show = 0 } show-- > 0'
}

clojure() {
    run "Clojure" lein test
    local ran bad
    ran=$(sed -n 's/^Ran \([0-9]*\) tests.*/\1/p' "$log" | tail -n 1)
    # Leiningen names a failed test once for each failed assertion; one that fails to load, or in a fixture, has no name.
    bad=$(sed -n 's/^lein test :only //p' "$log" | sort -u | wc -l)
    # -Xcheck:jni speaks only of broken rules.
    if grep -qE '^(WARNING|FATAL ERROR) in native method|^WARNING: JNI' "$log"; then
        echo "The JVM found a broken rule of JNI; see above."
        bad=$((bad + 1))
    fi
    ran=${ran:-0}
    count $((ran > bad ? ran - bad : 0)) "$bad"
    keep '/in native method|^WARNING: JNI|^Syntax error/; /^(FAIL|ERROR) in/ { show = 30 } /^$/ { show = 0 } show-- > 0'
}

rust
script "Bridge" tests/bridge/run.sh
clojure
script "Ring servers as processes" tests/cluster/run.sh

if [ "$failed" -ne 0 ]; then
    printf '\n=== What failed\n'
    cat "$failures"
fi
printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
