(ns quorate.raft
  "Replicated, durable state inside a JVM.

  The concepts:

  - A **cluster** is a few *servers* that keep the same log. Each runs a **node**: `(start config)` → a map-like value
    that every function here takes first.
  - An **entry** is any EDN value, or a byte array. `(new-entry node entry callback)` sends it to the log, from any node.
    Once it is on the disks of a majority it is **committed**, and every node applies it to its **state machine**, in the
    same order.
  - The state machine is yours: a pure **reducer** `(fn [state entry ctx] [state' result])`, for which the node keeps
    the state and takes snapshots, or fluree's `(fn [entry raft-state] result)`, which keeps its own.
  - The **callback** gets the result from the state machine of the node that you called, after it applied the entry.
  - The **index** counts entries from 1 and is the same on every node. The **term** counts leaders.
  - One node **leads** at a time; a **leader watch** tells when that changes.

  This namespace is also a drop-in for `fluree.raft`: its functions, configuration and both conventions of its callbacks work as
  they are; `docs/from-fluree-raft.md` has the table.

  Errors are ex-infos with `:error` in their data. What is refused at once is *thrown*, and nothing has happened; what
  fails later is *passed* to the callback, or is what the returned CompletableFuture fails with:

      :raft/config           start: a wrong configuration; `:key` says where
      :raft/invalid          a wrong argument
      :raft/unreadable       thrown: the entry has a part that could not be read back; `:path`, `:class`
      :raft/too-large        thrown: the entry is larger than 8 MiB
      :raft/overloaded       thrown: too many entries wait for their outcome; submit more slowly
      :raft/command-timeout  no outcome in time; the entry may still commit, see `outcome`
      :raft/not-leader       with :forward? false: another node leads
      :raft/unavailable      no quorum, or no leader, in time; nothing was done
      :raft/shutdown         the node was closed
      :raft/state-machine    a reducer threw, or returned no pair; its state is as before
      :raft/membership       an impossible change of members; for operations in fluree's way it is
                             :raft/cannot-add-server or :raft/cannot-remove-server
      :raft/no-snapshots     a :state-machine has no snapshots
      :raft/locked :raft/address-in-use :raft/io :raft/corrupt :raft/refused   start: the sentence says what to do
      :raft/internal         a defect of Quorate

  Functions that ask the cluster for something (`add-server!`, `remove-server!`, `transfer-leader!`, `snapshot!`) return a
  CompletableFuture: `@` waits and throws the failure itself. Callbacks and futures of one node run in order on its
  one callbacks thread: a callback that blocks holds up the next ones, and nothing else.

  All times are milliseconds."
  (:refer-clojure :exclude [sync])
  (:require [quorate.impl.channels :as channels]
            [quorate.impl.closing :as closing]
            [quorate.impl.commands :as commands]
            [quorate.impl.config :as config]
            [quorate.impl.conventions :as conventions]
            [quorate.impl.errors :as errors]
            [quorate.impl.machine :as machine]
            [quorate.impl.members :as members]
            [quorate.impl.node :as node]
            [quorate.impl.opening :as opening]
            [quorate.impl.outcomes :as outcomes]
            [quorate.impl.printing]
            [quorate.impl.raft-state :as raft-state]
            [quorate.impl.rpc :as rpc]
            [quorate.impl.watches :as watches]
            [quorate.impl.wire :as wire])
  (:import (java.io Writer)
           (java.nio.charset StandardCharsets)))

(set! *warn-on-reflection* true)

(defrecord Node [id config this-server other-servers])

(defrecord RaftCommand [entry id timeout callback])

(defn- runtime
  "The running inside of `node`: a node, anything that has one, like a key-value store, or a raft state."
  [node]
  (or (commands/runtime node)
      (throw (errors/error :raft/invalid (str "This is not a node of quorate.raft: " (pr-str (class node)) ".")))))

;; ------------------------------------------------------------------------------------------------- start, close

(defn start
  "Starts this server's node and returns it: a map-like value with fluree's keys, `:id :config :this-server :other-servers
  :watch-fns :msg-queue :log-file` and what the disk held at start: `:status :leader :term :index :commit :latest-index
  :snapshot-index :snapshot-term :snapshot-pending :voted-for :servers`; `:index` is how far the log has been replayed. The
  node then finds the others by itself.

  `config`, a map. These keys are the ones that most need; `(doc quorate.raft.configuration)` has them all:

      :this-server     this server's name, a string or a keyword (required)
      :servers         the names of all servers, or a map from names to addresses \"host:port\" (required)
      :log-directory   where the data is (default \"raftlog/\"); one node a directory
      :reducer         (fn [state entry ctx] [state' result]), pure. `ctx`: `:index :term :time-ms` (the leader's clock)
                       `:seed` (a random long, the same on every node) `:id` (a string, see `outcome`)
      :initial-state   what the reducer starts from (nil)
      :state-machine   instead: fluree's (fn [entry raft-state] result), which keeps its own state, with fluree's
                       :snapshot-write :snapshot-reify :snapshot-install :snapshot-xfer :snapshot-list-indexes
      :send-rpc-fn     fluree's; carries all messages when there are several servers
      :timeout-ms :heartbeat-ms :default-command-timeout   500, 100, 4000
      :leader-change-fn :close-fn :error-fn :validate      functions of yours
      :compat          :strict for fluree's own behaviour in four places: a follower's `new-entry` never calls its callback
                       (and :forward? is false); a leader watch gets the two states swapped for :become-leader and the
                       cause :request-votes; unknown keys are no warning; after `close` every call is silence

  A state machine must give the same result on every node: it may use what it is given, and no clock, random number or
  file; a reducer must not depend on the order of unsorted maps and sets, nor on metadata. What it throws becomes the
  result of that entry.

  Throws ex-info `:raft/config`, or what the engine finds wrong: `:raft/locked`, `:raft/address-in-use`, `:raft/corrupt`,
  `:raft/refused`, `:raft/io`, `:raft/invalid`."
  [config]
  (let [checked (config/checked config)
        config  (if (= :kv (:machine checked)) checked (channels/with-channels checked))
        rt      (opening/start config)]
    (channels/start! (:name rt) config (fn [event] (rpc/event! rt event)))
    (into (assoc (map->Node {}) ::runtime rt) (node/raft-state rt))))

(defn close
  "Closes `node`: whoever waits gets `:raft/shutdown`, the threads end, the directory is unlocked, the channels are closed,
  `:close-fn` is called. Returns what that returns, or `:closed`; calling it again is harmless and returns the same. Takes
  seconds at most."
  [node]
  (closing/close! (runtime node)))

;; ------------------------------------------------------------------------------------------------------ entries

(defn new-command
  "Sends a [[RaftCommand]], `{:entry :id :timeout :callback}`, to the log, as [[new-entry]] does. Its `:id`, any EDN value, rides
  in the log, see [[register-callback]]; nil is none. Its `:timeout` is in ms (nil: 5000). Returns true at once.

  `persist-callback` (may be nil) is called once, before the command's own: with true when the entry is committed, that is on
  the disks of a majority (fluree's says so when it is on the leader's alone), else with the ex-info that the callback gets,
  such as `:raft/not-leader` with `{:operation :new-command}`.

  Throws as [[new-entry]], and ex-info `:raft/invalid` for what is no RaftCommand."
  ([node command] (new-command node command nil))
  ([node command persist-callback]
   (when-not (instance? RaftCommand command)
     (throw (errors/error :raft/invalid (str "A command must be a RaftCommand, not " (pr-str (class command)) "."))))
   (if-let [rt (commands/runtime node)]
     (commands/submit-command! rt command persist-callback)
     (commands/put! node command persist-callback))))

(defn new-entry
  "Sends `entry`, any EDN value or a byte array, to the log. Returns true at once.

  `callback` (may be nil) is called once, with one argument: what this node's state machine returned for the entry, nil
  and false included; for a `:state-machine` that threw, `{:error \"State machine error: <message>\"}`; otherwise an
  ex-info:

      :raft/command-timeout  \"Command timed out.\", `{:operation :new-command :id id}`: no outcome within `timeout-ms`
                             (default :default-command-timeout). It may still commit; `(outcome node id)` tells.
      :raft/state-machine :raft/not-leader :raft/unavailable :raft/shutdown

  `node` may also be a map that has a command channel only, `{:config {:command-chan ch}}`: then the command is put there; when
  512 wait already the call waits for up to `timeout-ms`, and throws `:raft/overloaded`.

  Throws ex-info, and then the entry went nowhere: `:raft/unreadable`, `:raft/too-large`, `:raft/overloaded`,
  `:raft/shutdown`, `:raft/invalid` (refused by :validate, a timeout that is no positive whole number, a callback that is no
  function)."
  ([node entry callback]
   (new-entry node entry callback (commands/default-timeout node)))
  ([node entry callback timeout-ms]
   (if-let [rt (commands/runtime node)]
     (commands/submit! rt entry nil callback nil timeout-ms ->RaftCommand)
     (commands/put! node (->RaftCommand entry (str (random-uuid)) timeout-ms callback) nil))))

(defn register-callback
  "Has `callback` called once with what this node's state machine returns for the command with `id`, whichever node it was
  sent from, when it is applied here; or with ex-info `:raft/command-timeout` after `timeout-ms` (nil: 5000),
  `:raft/shutdown`, `:raft/overloaded` (65,536 wait already). Register before the command is sent: what was applied before is not
  looked up. Several callbacks for one id are all called. Returns true. Throws ex-info `:raft/invalid` for a nil id or a
  timeout that is no positive whole number."
  [node id timeout-ms callback]
  (if-let [rt (commands/runtime node)]
    (rpc/register! rt id timeout-ms callback)
    (rpc/put! node :register-callback [id timeout-ms] callback)))

(defn outcome
  "What became of the entry with `id`, the string under `:id` of an ex-info or of a reducer's `ctx`, as far as this node
  knows now:

      {:outcome :applied, :index n}   it took effect
      {:outcome :pending}             not decided yet, or (for a moment after the callback) not yet noted
      {:outcome :never}               it will never take effect; sending it again is safe
      {:outcome :unknown}             no such id, or too long ago

  Throws ex-info `:raft/invalid` when `id` is none, `:raft/shutdown`."
  [node id]
  (outcomes/outcome (runtime node) id))

;; -------------------------------------------------------------------------------------------------- what it knows

(defn status
  "What `node` knows of itself and of the cluster, now, from memory: a map with

      :name :id :incarnation :cluster-id    who it is, and in which of its lives
      :role                                 :leader :follower :candidate :learner :waiting :closed
      :waiting-for :problem                 a sentence, when something keeps it from working, else nil
      :term :leader :leader-address         who leads; nil when nobody is known to
      :index                                of the last entry applied here
      :last-log-index :committed-index :applied-log-index :purged-log-index   positions in the log, which batches entries
      :snapshot-index                       of the last snapshot
      :members                              [{:name :id :address :voter :matched-log-index} ...]
      :peers                                [{:address :connected :round-trip-us :last-error} ...]
      :apply-lag :in-flight :in-flight-bytes :requests :callbacks-waiting   how busy it is
      :election                             why and when it last saw one: {:cause :term :ms-ago}
      :fsync                                {:count :entries :bytes :last-us :mean-us :max-us}
      :last-error                           {:where :message :at} of the last error of one of your functions, if any
      :messages-dropped                     with a user's transport: messages that :send-rpc-fn did not take fast enough

  After `close` the last of it, with `:role :closed`."
  [node]
  (node/status (runtime node)))

(defn metrics
  "The node's figures in Prometheus' text format, as of now. Throws ex-info `:raft/shutdown` after `close`."
  [node]
  (String. (node/control (runtime node) wire/op-metrics (byte-array 0)) StandardCharsets/UTF_8))

(defn leader?
  "True when `node` leads, as far as it knows. Also takes a raft state."
  [node]
  (if (::runtime node)
    (= :leader (:role (status node)))
    (= :leader (:status node))))

(defn raft-state
  "fluree's raft state of `node`, now: a map with `:id :watch-fns :config :this-server :other-servers :status :leader :log-file
  :term :index :snapshot-index :snapshot-term :snapshot-pending :commit :latest-index :voted-for :servers :msg-queue :timeout
  :timeout-ms :timeout-at`, and when there are any `:command-callbacks` `{id n}`, `:pending-server`, `:monitor-fn`.

  `:status` is what [[status]] calls `:role`. `:index`, `:commit` and `:latest-index` count entries. `:servers` is `{name {:vote
  :next-index :match-index :snapshot-index :stats {:avg-response ms ...}}}`; its indexes are positions in the log, known to the
  leader, and `:vote` is known of this server only. `:timeout` is nil; `:timeout-at` is when an election timer set now would be
  over. The state can be used in place of the node."
  [node]
  (node/raft-state (runtime node)))

(defn get-raft-state
  "Calls `callback` with the [[raft-state]], on the callbacks thread. Returns true. Throws ex-info `:raft/overloaded` when 65,536
  such calls wait."
  [node callback]
  (if-let [rt (commands/runtime node)]
    (rpc/raft-state! rt callback)
    (rpc/put! node :raft-state nil callback)))

(defn raft-state-async
  "A core.async promise channel of the [[raft-state]]. Throws ex-info `:raft/invalid` without core.async on the class path."
  [node]
  (let [ch (channels/promise-chan)]
    (get-raft-state node (fn [state] (channels/give! ch state)))
    ch))

(defn logfile
  "Where the log is: the directory of its files, a java.io.File."
  [node]
  (raft-state/log-file (:config (runtime node))))

(defn latest-stored-snapshot
  "The index of the last snapshot that `:snapshot-list-indexes` of `config`, in either convention, lists; nil when it lists
  none, or is not there. What it throws passes through."
  [{:keys [snapshot-list-indexes] :as config}]
  (when snapshot-list-indexes
    (last (if (= :readme (conventions/convention config :snapshot-list-indexes))
            (snapshot-list-indexes (config/snapshot-directory config))
            (snapshot-list-indexes)))))

(defn event-chan
  "The channel of events of `node`; nil without core.async on the class path. See [[invoke-rpc]] for what it takes."
  [node]
  (get-in node [:config :event-chan]))

(defn sync
  "Waits until this node has applied everything that was committed anywhere in the cluster before the call (ReadIndex), so
  that what it reads then is not stale. Returns the index of the last entry applied.

  `opts`: `:timeout-ms`; `:consistency`, `:linearizable` (default) or `:lease`, which asks nobody and is right as long as the
  clocks do not drift apart by more than the lease's margin.

  Throws ex-info `:raft/unavailable`, `:raft/command-timeout`, `:raft/shutdown`."
  ([node] (sync node nil))
  ([node opts]
   @(node/barrier! (runtime node) opts)))

(defn state
  "The reducer's state on this node. With `:consistency :local` (the default) as it is; with `:linearizable` or `:lease`
  after a [[sync]] with the same `opts`. Throws ex-info `:raft/invalid` for a node without a reducer; what `sync` throws."
  ([node] (state node nil))
  ([node opts]
   (let [{:keys [machine]} (runtime node)]
     (when-not machine
       (throw (errors/error :raft/invalid "This node runs the key-value store: use quorate.kv.")))
     (when-not (= :local (:consistency opts :local))
       (sync node opts))
     (machine/current machine))))

;; ------------------------------------------------------------------------------------------------ leader watches

(defn add-leader-watch
  "Has `f` called, on the watches' thread, whenever the leader changes, or only for `event-type` `:become-leader` or
  `:become-follower` of this server. A second watch under `key` replaces the first. Returns true.

  `f` gets a map:

      :key             as given here
      :event           :become-leader or :become-follower (also when a follower sees another leader, or loses its leader)
      :cause           a keyword, such as :request-votes
      :message         a sentence
      :old-leader :new-leader   names, or nil
      :server          this server
      :old-raft-state :new-raft-state   see `raft-state`

  Each watch gets its events in order, none twice, and only those that come after it was added; one that is slow holds up
  nobody else, and misses events (said in the log) only when 1,024 wait for it. What `f` throws is logged and reported. Throws
  ex-info `:raft/invalid` for another event type or an `f` that is no function, `:raft/overloaded` beyond 1,024 watches."
  ([node key f] (add-leader-watch node key f nil))
  ([node key f event-type]
   (watches/add! (runtime node) key f event-type)))

(defn remove-leader-watch
  "Ends the leader watch under `key`; it is harmless when there is none. Returns true."
  [node key]
  (watches/remove! (runtime node) key))

(defn monitor-raft
  "Has `f` called with every event of `node` that is listed here, in order, on a thread of its own; nil ends that. Replaces the
  one before. Returns true. For debugging: without a monitor an event costs nothing, with one it costs making two raft
  states. When 4,096 events wait for `f`, more are dropped and counted, `:monitor-dropped` in [[status]].

  `f` gets `{:time \"0.090ms\" :instant ms :event [op data] :before state :after state}`, the states without `:config`, as of
  the moment when the event is told. `op` and `data`:

      :new-command                a RaftCommand that was sent from this node
      :append-entries             entries were applied on this follower: `{:term :leader-id :prev-log-index (the last one
                                  told before) :leader-commit (the last one applied) :count}`, once a batch
      :append-entries-response    the same on the leader
      a cause, as in a watch      the leader changed: `{:cause :old-leader :new-leader :server :term :role}`
      :raft-state :add-server :remove-server :register-callback :snapshot :monitor   as given to [[invoke-rpc]]

  What `f` throws is logged and reported."
  [node f]
  (if-let [rt (commands/runtime node)]
    (rpc/monitor! rt f)
    (rpc/put! node :monitor f nil)))

;; -------------------------------------------------------------------------------------------------------- events

(defn invoke-rpc
  "Carries out the operation `op` on `node`, as fluree's event loop does. Returns true at once; never throws: what is wrong is
  passed to `callback`, an ex-info (may be nil). `op`, `data` and what `callback` gets:

      :new-command        a RaftCommand, or a map with its keys; true, as a persist callback: see [[new-command]]
      :register-callback  [id timeout-ms]; see [[register-callback]]
      :raft-state         nil; the [[raft-state]]
      :monitor            a function or nil; nothing
      :add-server         \"server4\", or [command-id \"server4\"], or [command-id \"server4\" \"host:port\"], or
                          {:server :command-id :address}; at once `{:op :add :server :command-id :message}`, or ex-info
                          :raft/not-leader :raft/cannot-add-server. The change then goes on: see :pending-server in the
                          [[raft-state]]; a failure is reported to the log and to :error-fn
      :remove-server      the same, without an address; :raft/cannot-remove-server
      :snapshot           anything; the index of a snapshot that is taken now
      :close              anything; :raft-closed when the node is closed
      :quorate/message    the bytes that a :send-rpc-fn was given; true

  fluree's own messages between servers are refused: the engine has its own."
  [node op data callback]
  (if-let [rt (commands/runtime node)]
    (rpc/dispatch! rt op data callback false)
    (rpc/put! node op data callback)))

(defn invoke-rpc*
  "[[invoke-rpc]] for who has the channel of events only. Returns true; throws ex-info `:raft/shutdown` when it is closed,
  `:raft/overloaded` when 512 events wait for 5000 ms."
  [event-chan op data callback]
  (rpc/put! {:config {:event-chan event-chan}} op data callback))

;; --------------------------------------------------------------------------------------------------- membership

(defn- change-members! [node operation server address opts]
  (let [rt (runtime node)]
    (members/change! rt operation server address (node/timeout-of rt opts))))

(defn add-server!
  "Adds `server` at `address`, \"host:port\", to the cluster: it learns the log first and votes when it has caught up; with
  `:learner? true` in `opts` it never votes. Without an address, or with nil, its name must be one, or the configuration have
  it, or the messages go through `:send-rpc-fn`. Returns a CompletableFuture of true, done when the change is. Ask for a long
  `:timeout-ms` when there is much to learn.

  Fails with ex-info `:raft/membership` (the sentence says why), `:raft/unavailable` (also when `server` does not answer),
  `:raft/command-timeout`, `:raft/shutdown`; throws `:raft/config` for an address that is none."
  ([node server] (add-server! node server nil nil))
  ([node server address] (add-server! node server address nil))
  ([node server address opts]
   (change-members! node (if (:learner? opts) :add-learner :add) server
                    (members/address-of (runtime node) server address) opts)))

(defn remove-server!
  "Removes `server` from the cluster, also this one. Returns a CompletableFuture of true; fails like [[add-server!]]."
  ([node server] (remove-server! node server nil))
  ([node server opts]
   (change-members! node :remove server "" opts)))

(defn transfer-leader!
  "Has `server` lead. Returns a CompletableFuture of true; fails like [[add-server!]]."
  ([node server] (transfer-leader! node server nil))
  ([node server opts]
   (change-members! node :transfer server "" opts)))

(defn snapshot!
  "Takes a snapshot on this node now. Returns a CompletableFuture of its index, done when it is on the disk. Fails with ex-info
  when it could not be written, e.g. since the state holds a function, or a `:state-machine` has no `:snapshot-write`."
  ([node] (snapshot! node nil))
  ([node opts]
   (let [rt (runtime node)]
     (rpc/snapshot! rt (node/timeout-of rt opts)))))

;; ----------------------------------------------------------------------------------------------------- printing

(defn summary
  "A line about `node`: name, role, term, leader, index."
  [node]
  (let [{:keys [role term leader index]} (try (status node) (catch Exception _ {:role :unknown}))]
    (str (:this-server (runtime node)) " " (some-> role name)
         (when term (str ", term " term))
         (when leader (str ", leader " leader))
         (when index (str ", index " index)))))

(defmethod print-method Node [node ^Writer out]
  (.write out (str "#<quorate.raft/Node " (summary node) ">")))

(defmethod print-dup Node [node out]
  (print-method node out))
