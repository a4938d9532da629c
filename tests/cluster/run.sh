#!/usr/bin/env bash
# Ring servers as processes of their own: the request table, refusals, durability, three nodes, the loader.
# Usage: tests/cluster/run.sh [namespace...]. The last line is "N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")/../.."

lein do native-library, javac >&2
server_classpath=$(lein with-profile -dev classpath)
test_classpath="$server_classpath:$PWD/tests/cluster"

# Compiled once, so that each of the many servers starts in a second.
compiled=$(mktemp -d)
trap 'rm -rf "$compiled"' EXIT
java -Dclojure.compile.path="$compiled" -cp "$compiled:$server_classpath" clojure.main \
    -e "(compile 'quorate.ring.main) (compile 'quorate.load)" >/dev/null

java "-Dquorate.library=$PWD/${CARGO_TARGET_DIR:-target}/release/libquorate.so" \
     "-Dquorate.server.classpath=$compiled:$server_classpath" \
     -cp "$test_classpath" clojure.main -m quorate.cluster.runner "$@" </dev/null
