#!/bin/bash
# Quorate and its peers side by side: builds what can be built here, says what cannot, and runs it. See README.md.
#   benches/peers/run.sh [--quick] [--only a,b] [--rounds R] [--seconds S] ...
set -euo pipefail
cd "$(dirname "$0")/../.."
here=benches/peers out=target/peers
lacks() { echo "peers: $*" >&2; export PEERS_MISSING=1; }   # told by the exit status 3, too
newer() { [ ! -e "$1" ] || [ -n "$(find "${@:2}" -newer "$1" -type f -print -quit)" ]; }   # TARGET SOURCE...

for tool in java javac; do
    command -v "$tool" >/dev/null || { echo "peers: $tool is missing (a JDK, 17 or newer): nothing can be run." >&2; exit 1; }
done
mkdir -p "$out/driver"
if newer "$out/driver/Drive.class" "$here/driver"; then
    javac --release 17 -Xlint:all -Werror -d "$out/driver" "$here"/driver/*.java
fi

# Quorate's own: the engine.
export PEERS_ENGINE=${PEERS_ENGINE-target/release/quorate-bench}
if [ -n "$PEERS_ENGINE" ] && [ ! -x "$PEERS_ENGINE" ]; then
    if ! command -v cargo >/dev/null || ! cargo build --locked --release -p quorate-bench; then
        lacks "quorate's engine is not built: its row is left out."
        PEERS_ENGINE=
    fi
fi

# Quorate through Clojure: its own benchmark, when it can write its rows where it is told.
export PEERS_CLOJURE=
if [ -n "$PEERS_ENGINE" ]; then
    if ! command -v lein >/dev/null || ! grep -q -e --out benches/clojure/bench/clojure.clj 2>/dev/null; then
        lacks "lein or bench.clojure (with --out) is missing: quorate's Clojure rows are left out."
    else
        PEERS_CLOJURE=lein
    fi
fi

# Those of the JVM, from Maven Central.
export PEERS_JAVA="$out/java/peers.jar:$out/java/lib/*"
if newer "$out/java/peers.jar" "$here/java/pom.xml" "$here/java/src"; then
    if ! command -v mvn >/dev/null || ! (rm -rf "$out/java/lib"; cd "$here/java" && mvn -q -B package); then
        lacks "Maven (or what it fetches) is missing: Aeron Cluster, SOFAJRaft, Ratis, MicroRaft and fluree/raft are left out."
        PEERS_JAVA=
    fi
fi

# hashicorp/raft.
export PEERS_GO="$out/peers-go"
if newer "$PEERS_GO" "$here/go"; then
    if ! command -v go >/dev/null || ! (cd "$here/go" && go build -o "../../../$PEERS_GO" .); then
        lacks "Go (1.25 or newer, or what it fetches) is missing: hashicorp/raft is left out."
        PEERS_GO=
    fi
fi

# fluree/raft, where its jar is given.
export PEERS_FLUREE=
if [ -n "${FLUREE_RAFT_JAR-}" ] && [ -n "$PEERS_JAVA" ]; then
    PEERS_FLUREE="$FLUREE_RAFT_JAR:$PEERS_JAVA:$here/clojure"
elif [ -z "${FLUREE_RAFT_JAR-}" ]; then
    echo "peers: FLUREE_RAFT_JAR is not set: fluree/raft is left out." >&2
fi

exec java -cp "$out/driver" Drive "$@"
