#!/usr/bin/env bash
# Every check that is not a test. Changes no source file. Runs all of them, then says which failed.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()

# check NAME COMMAND...: quiet when it holds, the whole output when not.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1 </dev/null); then
        printf 'ok      %s\n' "$name"
    else
        printf 'FAILED  %s\n%s\n' "$name" "$output"
        failed+=("$name")
    fi
}

engine_without_jni() {
    local tree
    tree=$(cargo tree --locked -p quorate-engine --edges normal,build --prefix none) || return 1
    if grep -E '^jni(-sys)? ' <<<"$tree"; then
        echo "quorate-engine depends on jni; only native/bridge may."
        return 1
    fi
}

clojure_warnings() {
    lein do native-library, javac >/dev/null || return 1
    java -cp "$classpath:tests/cluster" clojure.main dev/warnings.clj clj/src clj/dev tests
}

java_warnings() {
    local classes sources status
    classes=$(mktemp -d)
    sources=$(find clj/java tests -name '*.java')
    # shellcheck disable=SC2086  # a list of files
    [ -z "$sources" ] || javac --release 17 -Xlint:all,-path -Werror -cp "$classpath" -d "$classes" $sources
    status=$?
    rm -rf "$classes"
    return $status
}

classpath=$(lein with-profile +dev,+repl,+test classpath) || exit 1

check "cargo fmt"                      cargo fmt --all --check
check "clippy"                         cargo clippy --locked --release --workspace --all-targets -- -D warnings
check "rustdoc"                        env RUSTDOCFLAGS="-D warnings" cargo doc --locked --release --workspace --no-deps --document-private-items
check "the engine knows no jni"        engine_without_jni
check "javac -Xlint:all"               java_warnings
check "reflection and boxed math"      clojure_warnings
if command -v clj-kondo >/dev/null; then
    check "clj-kondo"                  clj-kondo --lint clj tests
else
    printf 'skipped clj-kondo (not installed)\n'
fi
if command -v shellcheck >/dev/null; then
    check "shellcheck"                 shellcheck -x .ci/run dev/*.sh tests/*/*.sh
else
    printf 'skipped shellcheck (not installed)\n'
fi

[ ${#failed[@]} -eq 0 ] || { printf 'Failed: %s\n' "$(IFS=,; echo "${failed[*]}")"; exit 1; }
