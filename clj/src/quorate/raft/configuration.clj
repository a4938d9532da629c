(ns quorate.raft.configuration
  "The configuration of a node: the map that `quorate.raft/start` takes. A key that is nil counts as absent; an unknown one is
  kept, for it may be yours.

      :this-server     this server's name, a string or a keyword (required)
      :servers         the names of all servers, or a map from names to addresses (required)
      :addresses       addresses \"host:port\" by name, for names that are none themselves. \"host:port\" and
                       \"/ip4/127.0.0.1/tcp/62071\" are. A single server needs none.
      :listen          where to listen, when that is not this server's address
      :log-directory   where the data is (default \"raftlog/\"); one node a directory
      :reducer         (fn [state entry ctx] [state' result]), pure. `ctx`: `:index :term :time-ms` (the leader's clock)
                       `:seed` (a random long, the same on every node) `:id` (a string, see `outcome`)
      :initial-state   what the reducer starts from (nil)
      :state-machine   instead: fluree's (fn [entry raft-state] result), which keeps its own state, with
      :snapshot-write :snapshot-reify :snapshot-install :snapshot-xfer :snapshot-list-indexes   as fluree has them
      :callbacks       :readme or :source: fluree's convention for functions whose arities fit both; see
                       `quorate.impl.conventions`
      :send-rpc-fn     fluree's; carries all messages when there are several servers, and then there need be no addresses
      :transport       :native (TCP, no :send-rpc-fn needed) or :user. With :user heartbeats pass through the JVM: a long
                       garbage collection can cost an election
      :timeout-ms      election timeout (500): a follower that hears nothing for between 1.2 and 1.8 times this asks for votes
      :heartbeat-ms    how often a leader is heard (100); at most half of :timeout-ms
      :default-command-timeout  for new-entry and all else that waits (4000)
      :forward?        true: an entry given to a follower goes to the leader; false: it fails with :raft/not-leader
      :validate        (fn [entry]): false, a sentence, or an exception refuses an entry before it is logged
      :join?           only join a cluster that exists, never found one (false)
      :tls             {:cert file, :key file, :ca file} in PEM: servers speak TLS with each other, and both sides must show a
                       certificate that the CA signed; a server's must name the host of its address (`docs/security.md`).
                       New files are taken up while the node runs
      :insecure        true allows addresses beyond loopback without :tls, in plain text
      :snapshot-threshold  a snapshot every so many entries (100000; 100 with :snapshot-write)
      :snapshot-timeout-ms how long a user's snapshot may take (60000)
      :log-keep-entries    log entries kept before a snapshot for followers that lag (20000; with :snapshot-write
                       :log-history (10) times :snapshot-threshold, at least 1000)
      :retry-ms        pause between attempts to find the cluster (250)
      :spin-us         how long a thread of the engine that has just worked waits awake for more, in microseconds (300; 0: it sleeps
                       at once, which spares processors and makes each write wait for several wake-ups)
      :leader-change-fn  a leader watch from the very start; see `add-leader-watch`
      :close-fn        called at the end of `close`, without arguments
      :error-fn        (fn [{:keys [where error message instant]}]): told of errors of your functions
      :command-chan :event-chan  fluree's channels of events, [operation data callback], with core.async on the class path;
                       made when absent, closed by `close`
      :log-level       of the engine's log lines: :error :warn :info :debug :trace
      :strict-config   true: unknown keys are errors; otherwise a warning in the log, with the nearest known key
      :compat          :strict for fluree's own behaviour in four places: a follower's `new-entry` never calls its callback
                       (and :forward? is false); a leader watch gets the two states swapped for :become-leader and the
                       cause :request-votes; unknown keys are no warning; after `close` every call is silence
      :entries-max :entry-cache-size :catch-up-rounds   accepted; the engine needs none of them"
  (:require [quorate.impl.config :as config]
            [quorate.impl.user-snapshots :as user-snapshots]))

(set! *warn-on-reflection* true)

(defn checked
  "`config` as `quorate.raft/start` would take it, with the defaults and what follows from it, such as `:transport`; nothing is
  started. Throws ex-info `:raft/config`, with the `:key` and a sentence."
  [config]
  (let [found (config/checked config)]
    (user-snapshots/check! found)
    found))
