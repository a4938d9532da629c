# Functions to run ring servers from a shell script: sourced by demo.sh and cluster.sh.
# shellcheck shell=bash

ready_seconds=180          # three Leiningens and three servers start on few cores
declare -A server_group    # port → process group of `lein ring server` and the JVMs that it starts
logs=$(mktemp -d)

fail() { printf '\n%s\n' "$*" >&2; exit 1; }

port_used() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# need_free_ports PORT...: the HTTP ports and the raft ports that follow from them.
need_free_ports() {
    local port each
    for port in "$@"; do
        for each in "$port" $((port + 10000)); do
            if port_used "$each"; then fail "Port $each is in use; end what listens there and try again."; fi
        done
    done
}

others() { local port; for port in "${ports[@]}"; do [ "$port" = "$1" ] || printf 'http://localhost:%s\n' "$port"; done | paste -sd, -; }

# start_server PORT DATA_DIR [NAME=VALUE...]: in the background, with a process group of its own.
start_server() {
    local port=$1 data=$2 cluster
    shift 2
    cluster=$(others "$port")
    printf '$ CLUSTER=%s PORT=%s%s lein ring server\n' "$cluster" "$port" "${*:+ $*}"
    env "CLUSTER=$cluster" "PORT=$port" "DATA_DIR=$data" "$@" \
        setsid lein ring server >"$logs/$port" 2>&1 </dev/null &
    server_group[$port]=$!
}

server_runs() { kill -0 -- "-${server_group[$1]}" 2>/dev/null; }

# wait_ready PORT...: until each answers with a quorum behind it.
wait_ready() {
    local port deadline=$((SECONDS + ready_seconds))
    for port in "$@"; do
        until curl -sf -m 10 -o /dev/null "localhost:$port/_health"; do
            server_runs "$port" || { cat "$logs/$port" >&2; fail "The server on port $port ended."; }
            [ $SECONDS -lt $deadline ] || { cat "$logs/$port" >&2; fail "The server on port $port was not ready within $ready_seconds s."; }
            sleep 0.5
        done
    done
}

# kill_server PORT: SIGKILL to Leiningen and to the server's JVM alike.
kill_server() {
    printf '$ kill -9 the server on port %s\n' "$1"
    kill -KILL -- "-${server_group[$1]}"
    wait "${server_group[$1]}" 2>/dev/null || true
    unset "server_group[$1]"
}

# stop_servers: SIGTERM to all that still run, SIGKILL to those that do not end within ten seconds.
stop_servers() {
    local port deadline=$((SECONDS + 10))
    for port in "${!server_group[@]}"; do kill -TERM -- "-${server_group[$port]}" 2>/dev/null || true; done
    for port in "${!server_group[@]}"; do
        while server_runs "$port" && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
        kill -KILL -- "-${server_group[$port]}" 2>/dev/null || true
        wait "${server_group[$port]}" 2>/dev/null || true
    done
    rm -rf "$logs"
}
