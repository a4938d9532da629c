#!/bin/bash
# A short test of the comparison itself: it measures, leaves nothing behind, and fails where it must. Needs Maven Central once.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0
check() { if [ "$2" = "$3" ]; then echo "ok: $1"; else echo "FAILED: $1: $2, not $3"; failed=1; fi; }   # WHAT FOUND MEANT
left() { find "$out" /dev/shm -maxdepth 1 -name 'quorate-peers-*' -user "$(id -un)" 2>/dev/null | wc -l; }
run() { benches/peers/run.sh --quick --dir "$out" --out "$out/rows" "$@" >"$out/log" 2>&1; }

before=$(left)
benches/peers/run.sh --only nothing --out "$out/rows" >"$out/log" 2>&1
check "a system that is not there is refused" $? 2
run --only microraft --seconds 1
check "a short run succeeds" $? 0
check "two rows of figures and one of syncs" "$(grep -c '"system":"MicroRaft"' "$out/rows")" 3
check "all figures are of something" "$(grep -c '"ops_per_s":[1-9]' "$out/rows")" 2
run --only microraft+MICRORAFT_FORCE=no --only-syncs
check "a system that does not sync is found out" $? 1
check "and says so" "$(grep -c 'no majority had it on disk' "$out/log")" 1
PEERS_JVM=-Xmx1k run --only microraft --no-syncs
check "a node that does not start is a failure" $? 1
timeout -s TERM 4 benches/peers/run.sh --quick --only microraft --seconds 60 --dir "$out" --out "$out/rows" >"$out/log" 2>&1
check "a run that is ended ends" $? 124
sleep 2
check "no directory is left" "$(left)" "$before"
exit "$failed"
