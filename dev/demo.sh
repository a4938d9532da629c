#!/usr/bin/env bash
# Three ring servers, told as a story: what is done and what is seen. Exits 0 only if every step held.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=dev/servers.sh
source dev/servers.sh

ports=(3000 4000 5000)
data=$(mktemp -d)
answer_seconds=20    # an election, and a node that catches up, are done well within

finish() {
    local status=$?
    stop_servers
    rm -rf "$data"
    [ $status -eq 0 ] || printf '\nThe demo failed.\n' >&2
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { printf '\n== %s\n' "$*"; }

# shown ARGUMENTS...: a curl command as one would type it.
shown() {
    local line='$ curl' argument
    for argument in "$@"; do
        case $argument in *[!A-Za-z0-9:/._=-]*) argument=${argument@Q} ;; esac
        line+=" $argument"
    done
    printf '%s\n' "$line"
}

# request STATUS BODY ARGUMENTS...: asks once with curl; whether status and body are as expected. Leaves both in $answer.
request() {
    local status=$1 body=$2
    shift 2
    answer=$(curl -sS -m 15 -w ' %{http_code}' "$@" 2>&1) || return 1
    [ "${answer##* }" = "$status" ] || return 1
    case ${answer% *} in $body) ;; *) return 1 ;; esac
}

# see STATUS BODY ARGUMENTS...: the answer must come within $answer_seconds; BODY is a pattern.
see() {
    local deadline=$((SECONDS + answer_seconds))
    shown "${@:3}"
    until request "$@"; do
        [ $SECONDS -lt $deadline ] || fail "Expected $1 \"$2\"; the last answer was: $answer"
        sleep 0.3
    done
    printf '%s\n' "$answer"
}

# refused ARGUMENTS...: the next answer must be a 503, with Retry-After, within five seconds.
refused() {
    local headers started=$SECONDS
    shown "$@"
    headers=$(curl -sS -m 15 -i "$@" | tr -d '\r') || fail "There was no answer."
    [[ $headers == "HTTP/1.1 503"* && $headers == *$'\nRetry-After: '* ]] || fail "Expected a refusal (503); got: $headers"
    [ $((SECONDS - started)) -le 5 ] || fail "The refusal took too long."
    printf '%s\n' "${headers##*$'\n'} 503"
}

need_free_ports "${ports[@]}"

say "Three servers start, each with an empty disk"
for port in "${ports[@]}"; do start_server "$port" "$data/$port"; done
wait_ready "${ports[@]}"

say "Write on one node, see it on the others"
see 201 created -XPUT localhost:4000/mykey -d mydata
for port in "${ports[@]}"; do see 200 mydata -XGET "localhost:$port/mykey"; done

say "Disconnect one node, write and still see a consensus"
kill_server 5000
see 201 created -XPUT localhost:3000/mykey -d 'written by two'
see 200 'written by two' -XGET localhost:4000/mykey

say "Disconnect the majority, and the consensus goes away"
kill_server 4000
refused -XPUT localhost:3000/mykey -d 'written by one'
refused -XGET localhost:3000/mykey
see 200 'written by two' -XGET 'localhost:3000/mykey?consistency=local'

say "Both come back, and catch up"
start_server 4000 "$data/4000"
start_server 5000 "$data/5000"
wait_ready 3000 4000 5000
# The refused write may have stayed in the log of the one that was left; every node then tells the same.
see 200 'written by *' -XGET localhost:3000/mykey
settled=${answer% *}
for port in 4000 5000; do see 200 "$settled" -XGET "localhost:$port/mykey?consistency=local"; done
see 201 created -XPUT localhost:5000/mykey -d 'written by three'
for port in "${ports[@]}"; do see 200 'written by three' -XGET "localhost:$port/mykey"; done

say "One node loses its disk, and joins again"
kill_server 5000
printf '$ rm -r the data of the server on port 5000\n'
rm -r "${data:?}/5000"
see 201 created -XPUT localhost:4000/meanwhile -d 'while it was away'
start_server 5000 "$data/5000" JOIN=true
wait_ready 5000
see 200 'while it was away' -XGET 'localhost:5000/meanwhile?consistency=local'
see 200 'written by three' -XGET 'localhost:5000/mykey?consistency=local'
see 201 created -XPUT localhost:5000/mykey -d 'written by the one that was wiped'
for port in "${ports[@]}"; do see 200 'written by the one that was wiped' -XGET "localhost:$port/mykey"; done

say "Every step held."
