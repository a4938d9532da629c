#!/usr/bin/env bash
# Three ring servers on 3000, 4000 and 5000, until ^C. Their data stays in data/PORT.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=dev/servers.sh
source dev/servers.sh

ports=(3000 4000 5000)
trap stop_servers EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

need_free_ports "${ports[@]}"
for port in "${ports[@]}"; do start_server "$port" "data/$port"; done
wait_ready "${ports[@]}"
cat <<'TEXT'

Three servers run. In another terminal:
  curl -XPUT localhost:4000/mykey -d mydata
  curl -XGET localhost:3000/mykey
  curl localhost:3000/_cluster
^C stops them.
TEXT
tail -q -n +1 -F "$logs"/* &
follower=$!
trap 'kill "$follower" 2>/dev/null || true; stop_servers' EXIT
wait "${server_group[@]}"
