#!/usr/bin/env bash
# The boundary between Java and the native library, on the echo engine, under -Xcheck:jni, on every JDK from 17 on that
# is found. Usage: tests/bridge/run.sh [LIBRARY]; without one, the library is built.
# Prints one line a case, then "N passed, N failed"; exits with 1 when one failed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# cargo test alone does not make the shared library.
[ $# -gt 0 ] || cargo build --locked --release --manifest-path "$root/Cargo.toml" -p quorate-bridge
library=$(realpath -- "${1:-$root/target/release/libquorate.so}")
[ -f "$library" ] || { echo "There is no library $library; build it with: cargo build --release -p quorate-bridge" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

report() { # PASS|FAIL text
    echo "$1 $2"
    if [ "$1" = PASS ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# Runs a JVM and checks exit code and output; "no" as the label means that the program prints its own PASS and FAIL lines.
check() { # label, expected exit code, java arguments...
    local label=$1 expected=$2 status=0 out=$work/out
    shift 2
    timeout 300 "$java" "${flags[@]}" "$@" >"$out" 2>&1 || status=$?
    while read -r word text; do
        case $word in PASS | FAIL) report "$word" "$version: $text" ;; esac
    done <"$out"
    if [ "$status" != "$expected" ]; then
        report FAIL "$version: $label (exit code $status, expected $expected)"
        tail -n 40 "$out"
    elif grep -nE 'WARNING|FATAL' "$out"; then
        report FAIL "$version: $label (the JVM complains, see above)"
    else
        report PASS "$version: $label"
    fi
}

homes() { # the JDKs of this machine, each once
    local one
    for one in ${JAVA_HOME:+"$JAVA_HOME"} /usr/lib/jvm/* "$(dirname -- "$(realpath -- "$(command -v java)")")/.."; do
        if [ -x "$one/bin/java" ]; then realpath -- "$one"; fi
    done | sort -u
}

javac --release 11 -Xlint:all -Werror -d "$work/main" "$root"/clj/java/quorate/jni/*.java
javac --release 11 -Xlint:all -Werror -cp "$work/main" -d "$work/test" "$here"/quorate/jni/*.java
case $(uname -s) in Darwin) os=macos ;; *) os=linux ;; esac
case $(uname -m) in amd64 | x86_64) arch=x86_64 ;; arm64 | aarch64) arch=aarch64 ;; *) arch=$(uname -m) ;; esac
mkdir -p "$work/jar/native/$os-$arch" "$work/lib" "$work/empty"
cp -- "$library" "$work/jar/native/$os-$arch/"
cp -- "$library" "$work/lib/"
mkdir -p "$work/fallback/quorate/jni"
cp -- "$work/main/quorate/jni/Native.class" "$work/test/quorate/jni/FallbackTest.class" "$work/fallback/quorate/jni/"
(cd "$work/jar" && jar cf ../native.jar native)

while read -r home; do
    java=$home/bin/java
    version=$("$java" -XshowSettings:properties -version 2>&1 | sed -n 's/ *java.specification.version = //p')
    [ "${version%%.*}" -ge 17 ] 2>/dev/null || continue
    version="JDK $version"
    flags=(-Xcheck:jni -Xmx512m -Djava.io.tmpdir="$work/empty")
    [ "${version#JDK }" -lt 22 ] || flags+=(--enable-native-access=ALL-UNNAMED)
    classes=$work/main:$work/test
    given=(-cp "$classes" -Dquorate.library="$library")
    check "the boundary under stress" 0 "${given[@]}" quorate.jni.BridgeTest
    check "System.exit without closing" 7 "${given[@]}" quorate.jni.ExitTest exit
    check "main returns without closing" 0 "${given[@]}" quorate.jni.ExitTest return
    check "the library by -Dquorate.library" 0 "${given[@]}" quorate.jni.LoaderTest found
    check "the library by java.library.path" 0 -cp "$classes" -Djava.library.path="$work/empty:$work/lib" quorate.jni.LoaderTest found
    check "the library from a jar" 0 -cp "$classes:$work/native.jar" -Djava.library.path="$work/empty" quorate.jni.LoaderTest found
    if [ -z "$(find "$work/empty" -name 'quorate-*')" ]; then
        report PASS "$version: the copy of the library is gone"
    else
        report FAIL "$version: a copy of the library was left behind"
    fi
    check "a missing library is explained" 0 -cp "$classes" -Djava.library.path="$work/empty" quorate.jni.LoaderTest missing
    check "a wrong path is explained" 0 -cp "$classes" -Dquorate.library="$work/no.so" quorate.jni.LoaderTest nowhere
    check "a file that is no library is explained" 0 -cp "$classes" quorate.jni.LoaderTest garbage
    check "many threads load once" 0 "${given[@]}" quorate.jni.LoaderTest threads
    check "an exception comes even without its class" 0 -cp "$work/fallback" quorate.jni.FallbackTest "$library"
    check "a second class loader is refused the same file" 0 "${given[@]}" quorate.jni.LoaderTest twice refused
    check "a second class loader gets a copy from the jar" 0 -cp "$classes:$work/native.jar" -Djava.library.path="$work/empty" quorate.jni.LoaderTest twice loads
done < <(homes)

echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
