#!/usr/bin/env bash
# Runs the parts of the benchmark and writes the report. PARTS="floor engine" chooses, QUICK=1 is a short version of a few
# minutes, LONG=1 takes sizes that need an hour, TMPDIR is a directory on the disk that is meant.
# A part that is missing, fails or takes too long is named and the rest goes on; the exit status is 0 only if all were measured.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

all="floor engine durability reads recovery growth clojure codec bridge http pauses peers"
out=${OUT:-target/bench}                     # elsewhere for the tests of this script only: other parts know one place
data=${TMPDIR:-/tmp}
effort=()
limit=420                                   # seconds a part may take before it is ended
[ -z "${QUICK:-}" ] || { effort=(--quick); limit=180; }
[ -z "${LONG:-}" ] || { effort=(--long); limit=3600; }
[ ${#effort[@]} -eq 0 ] || [ -z "${QUICK:-}" ] || [ -z "${LONG:-}" ] || { echo "QUICK and LONG exclude each other." >&2; exit 2; }
bench=${BENCH:-${CARGO_TARGET_DIR:-target}/release/quorate-bench}
bad=()
child=

say() { printf '\n== %s\n' "$*" >&2; }

# The part that runs is a process group of its own: it ends with this script, and with its time.
stop() { [ -z "$child" ] || { kill -TERM -- "-$child" 2>/dev/null; sleep 2; kill -KILL -- "-$child" 2>/dev/null; }; }
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM HUP

# command_of PART: leaves the command in the array $run, or says in $missing what it lacks.
command_of() {
    run=() missing=
    case $1 in
        floor | engine | durability | reads | recovery | growth)
            run=("$bench" part "$1" "${effort[@]}" --out "$out" --dir "$data") ;;
        peers)
            run=(benches/peers/run.sh "${jvm_effort[@]}")
            [ -x "${run[0]}" ] || missing="${run[0]} is not there" ;;
        clojure | codec | bridge | http | pauses)
            run=(lein with-profile +bench run -m "bench.$1" "${jvm_effort[@]}")
            [ -f "benches/clojure/bench/$1.clj" ] || missing="benches/clojure/bench/$1.clj is not there"
            command -v lein >/dev/null || missing="Leiningen is not installed" ;;
        *) missing="there is no such part (there are: $all)" ;;
    esac
}

# status PART SECONDS OUTCOME: a row for the report; the outcome has no character that JSON minds.
status() {
    printf '{"part":"status","system":"make bench","variant":"%s","seconds":%d,"more":{"outcome":"%s"}}\n' "$1" "$2" "$3" \
        >>"$out/status.jsonl"
    [ "$3" = measured ] || { bad+=("$1: $3"); printf '%s: %s\n' "$1" "$3" >&2; }
}

# part NAME: runs it, and writes down what became of it.
part() {
    local began=$SECONDS code most=$limit
    # Eight systems take turns there.
    [ "$1" != peers ] || most=$((3 * limit))
    # JVMs that must get warm, in six rows.
    [ "$1" != clojure ] || most=$((2 * limit))
    say "$1"
    command_of "$1"
    if [ -n "$missing" ]; then status "$1" 0 "missing: $missing"; return; fi
    # Rows of an earlier run must not pass for this one's.
    rm -f "$out/$1.jsonl"
    setsid "${run[@]}" </dev/null >"$out/$1.log" 2>&1 &
    child=$!
    while kill -0 "$child" 2>/dev/null && [ $((SECONDS - began)) -lt "$most" ]; do sleep 0.2; done
    if kill -0 "$child" 2>/dev/null; then
        stop
        wait "$child" 2>/dev/null
        status "$1" $((SECONDS - began)) "ended after $most s"
    else
        wait "$child"
        code=$?
        kill -KILL -- "-$child" 2>/dev/null
        if [ "$code" -eq 0 ] && [ -s "$out/$1.jsonl" ]; then
            status "$1" $((SECONDS - began)) measured
        elif [ "$code" -eq 0 ]; then
            status "$1" $((SECONDS - began)) "wrote no rows"
        else
            status "$1" $((SECONDS - began)) "failed with status $code, see $1.log"
            tail -n 5 "$out/$1.log" >&2
        fi
    fi
    child=
}

jvm_effort=()
[ -z "${QUICK:-}" ] || jvm_effort=(--quick)
mkdir -p "$out" || exit 1
[ -n "${BENCH:-}" ] || cargo build --locked --release -p quorate-bench || exit 1
case " ${PARTS:-$all} " in
    # Before any part's time begins to run.
    *" clojure "* | *" codec "* | *" bridge "* | *" http "* | *" pauses "*)
        if command -v lein >/dev/null; then
            lein "do" native-library, javac >"$out/build.log" 2>&1 || tail -n 5 "$out/build.log" >&2
        fi ;;
esac
# A whole run leaves nothing of earlier ones; with PARTS the others' rows stay, and the report says that they are older.
[ -n "${PARTS:-}" ] || rm -f "$out"/*.jsonl "$out"/*.svg "$out"/*.log
rm -f "$out/status.jsonl"
"$bench" facts --out "$out" --dir "$data" 2>/dev/null || exit 1
for name in ${PARTS:-$all}; do part "$name"; done

say "report"
"$bench" report --out "$out" || bad+=("report: see above")
if [ ${#bad[@]} -ne 0 ]; then
    printf '\nNot all was measured:\n' >&2
    printf '  %s\n' "${bad[@]}" >&2
    exit 1
fi
