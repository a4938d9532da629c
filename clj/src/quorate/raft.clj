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
      :raft/membership       an impossible change of members
      :raft/no-snapshots     a :state-machine has no snapshots
      :raft/locked :raft/address-in-use :raft/io :raft/corrupt :raft/refused   start: the sentence says what to do
      :raft/internal         a defect of Quorate

  Functions that ask the cluster for something (`add-server!`, `remove-server!`, `transfer-leader!`, `snapshot!`) return a
  CompletableFuture: `@` waits and throws the failure itself. Callbacks and futures of one node run in order on its
  one callbacks thread: a callback that blocks holds up the next ones, and nothing else.

  All times are milliseconds."
  (:refer-clojure :exclude [sync])
  (:require [quorate.impl.codec :as codec]
            [quorate.impl.config :as config]
            [quorate.impl.errors :as errors]
            [quorate.impl.machine :as machine]
            [quorate.impl.node :as node]
            [quorate.impl.runner :as runner]
            [quorate.impl.wire :as wire])
  (:import (java.io Writer)
           (java.nio.charset StandardCharsets)
           (quorate.impl Answer)))

(set! *warn-on-reflection* true)

(defrecord Node [id config this-server other-servers])

(defn- runtime
  "The running inside of `node`, a node or anything that has one, like a key-value store."
  [node]
  (or (::runtime node)
      (throw (errors/error :raft/invalid (str "This is not a node of quorate.raft: " (pr-str (class node)) ".")))))

;; ------------------------------------------------------------------------------------------------- start, close

(defn start
  "Starts this server's node and returns it: a map-like value with `:id :config :this-server :other-servers`, and what the
  disk held at start: `:status :leader :term :index :commit :latest-index :snapshot-index :voted-for :servers`. Returns
  at once; the node then finds the others by itself.

  `config`, a map:

      :this-server     this server's name, a string or a keyword (required)
      :servers         the names of all servers, or a map from names to addresses (required)
      :addresses       addresses \"host:port\" by name, for names that are none themselves. \"host:port\" and
                       \"/ip4/127.0.0.1/tcp/62071\" are. A single server needs none.
      :listen          where to listen, when that is not this server's address
      :log-directory   where the data is (default \"raftlog/\"); one node a directory
      :reducer         (fn [state entry ctx] [state' result]), pure. `ctx`: `:index :term :time-ms` (the leader's clock)
                       `:seed` (a random long, the same on every node) `:id` (a string, see `outcome`)
      :initial-state   what the reducer starts from (nil)
      :state-machine   instead: fluree's (fn [entry raft-state] result), which keeps its own state
      :timeout-ms      election timeout (500): a follower that hears nothing for between once and twice this asks for votes
      :heartbeat-ms    how often a leader is heard (100); at most half of :timeout-ms
      :default-command-timeout  for new-entry and all else that waits (4000)
      :forward?        true: an entry given to a follower goes to the leader; false: it fails with :raft/not-leader
      :join?           only join a cluster that exists, never found one (false)
      :insecure        true allows addresses beyond loopback, without encryption
      :snapshot-threshold  a snapshot every so many entries (100000)
      :log-keep-entries    log entries kept before a snapshot for followers that lag (20000)
      :retry-ms        pause between attempts to find the cluster (250)
      :leader-change-fn  a leader watch from the very start; see `add-leader-watch`
      :close-fn        called at the end of `close`, without arguments
      :log-level       of the engine's log lines: :error :warn :info :debug :trace
      :strict-config   true: unknown keys are errors; otherwise a warning in the log, with the nearest known key

  A state machine must give the same result on every node: it may use what it is given, and no clock, random number or
  file; a reducer must not depend on the order of unsorted maps and sets, nor on metadata. What it throws becomes the
  result of that entry.

  Throws ex-info `:raft/config`, or what the engine finds wrong: `:raft/locked`, `:raft/address-in-use`, `:raft/corrupt`,
  `:raft/refused`, `:raft/io`, `:raft/invalid`."
  [config]
  (let [config (config/checked config)
        rt     (node/start config)]
    (into (assoc (map->Node {:config config}) ::runtime rt)
          (dissoc @(:last-raft-state rt) :config))))

(defn close
  "Closes `node`: whoever waits gets `:raft/shutdown`, the threads end, the directory is unlocked, `:close-fn` is called.
  Returns what that returns, or `:closed`; calling it again is harmless and returns the same. Takes seconds at most."
  [node]
  (node/close! (runtime node)))

;; ------------------------------------------------------------------------------------------------------ entries

(defn- check-callback [callback]
  (when-not (or (nil? callback) (ifn? callback))
    (throw (errors/error :raft/invalid (str "The callback must be a function or nil, not " (pr-str callback) ".")))))

(defn new-entry
  "Sends `entry`, any EDN value or a byte array, to the log. Returns true at once.

  `callback` (may be nil) is called once, with one argument: what this node's state machine returned for the entry, nil
  and false included; for a `:state-machine` that threw, `{:error \"State machine error: <message>\"}`; otherwise an
  ex-info:

      :raft/command-timeout  \"Command timed out.\", `{:operation :new-command :id id}`: no outcome within `timeout-ms`
                             (default :default-command-timeout). It may still commit; `(outcome node id)` tells.
      :raft/state-machine :raft/not-leader :raft/unavailable :raft/shutdown

  Throws ex-info, and then the entry went nowhere: `:raft/unreadable`, `:raft/too-large`, `:raft/overloaded`,
  `:raft/shutdown`, `:raft/invalid` (a timeout that is no positive whole number, a callback that is no function)."
  ([node entry callback]
   (new-entry node entry callback (:default-command-timeout (:config (runtime node)))))
  ([node entry callback timeout-ms]
   (let [rt (runtime node)]
     (node/check-timeout timeout-ms)
     (check-callback callback)
     (when-not (:machine rt)
       (throw (errors/error :raft/invalid "This node runs the key-value store: use quorate.kv.")))
     (node/submit-entry! rt (codec/encode entry) callback timeout-ms)
     true)))

(defn- id-bytes [id]
  (let [[_ node incarnation sequence] (when (string? id) (re-matches #"([0-9a-f]{1,16})\.(\d+)\.(\d+)" id))]
    (try
      (-> (wire/sink)
          (wire/u64! (Long/parseUnsignedLong node 16))
          (wire/u64! (Long/parseUnsignedLong incarnation))
          (wire/u64! (Long/parseUnsignedLong sequence))
          wire/built)
      (catch NumberFormatException _
        (throw (errors/error :raft/invalid (str (pr-str id) " is not the id of an entry.") {:id id}))))))

(defn outcome
  "What became of the entry with `id`, the string under `:id` of an ex-info or of a reducer's `ctx`, as far as this node
  knows now:

      {:outcome :applied, :index n}   it took effect
      {:outcome :pending}             not decided yet, or (for a moment after the callback) not yet noted
      {:outcome :never}               it will never take effect; sending it again is safe
      {:outcome :unknown}             no such id, or too long ago

  Throws ex-info `:raft/invalid` when `id` is none, `:raft/shutdown`."
  [node id]
  (let [in (wire/buffer (node/control (runtime node) wire/op-outcome (id-bytes id)))]
    (case (long (.get in))
      1 {:outcome :pending}
      2 {:outcome :applied, :index (.getLong in)}
      3 {:outcome :never}
      {:outcome :unknown})))

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
  "fluree's raft state of `node`, now: a map with `:id :config :this-server :other-servers :status :leader :term :index
  :commit :latest-index :snapshot-index :snapshot-term :snapshot-pending :voted-for :timeout-ms :servers`. `:status` is
  what [[status]] calls `:role`; `:servers` is `{name {...}}`. `:index`, `:commit` and `:latest-index` count entries."
  [node]
  (let [rt (runtime node)]
    (node/raft-state rt (node/status rt))))

(defn get-raft-state
  "Calls `callback` with the [[raft-state]], on the callbacks thread. Returns true."
  [node callback]
  (let [{:keys [callbacks] :as rt} (runtime node)
        tell! (fn [] (callback (node/raft-state rt (node/status rt))))]
    (when-not (runner/offer! callbacks tell!)
      (runner/guarded "A callback threw." (tell!)))
    true))

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

  What `f` throws is logged. Throws ex-info `:raft/invalid` for another event type."
  ([node key f] (add-leader-watch node key f nil))
  ([node key f event-type]
   (when-not (contains? #{nil :become-leader :become-follower} event-type)
     (throw (errors/error :raft/invalid (str "A leader watch is for :become-leader or :become-follower, not for "
                                             (pr-str event-type) "."))))
   (when-not (ifn? f)
     (throw (errors/error :raft/invalid (str "A leader watch must be a function, not " (pr-str f) "."))))
   (swap! (:leader-watches (runtime node)) assoc key {:f f, :event-type event-type})
   true))

(defn remove-leader-watch
  "Ends the leader watch under `key`; it is harmless when there is none. Returns true."
  [node key]
  (swap! (:leader-watches (runtime node)) dissoc key)
  true)

;; --------------------------------------------------------------------------------------------------- membership

(defn- change-members! [node operation server address opts]
  (let [rt (runtime node)]
    (node/request! rt wire/membership operation
                   (wire/membership-body operation (config/server-text server) address)
                   (node/timeout-of rt opts)
                   (constantly true))))

(defn add-server!
  "Adds `server` at `address`, \"host:port\", to the cluster: it learns the log first and votes when it has caught up; with
  `:learner? true` in `opts` it never votes. Returns a CompletableFuture of true. Ask for a long `:timeout-ms` when there
  is much to learn.

  Fails with ex-info `:raft/membership` (the sentence says why), `:raft/unavailable`, `:raft/command-timeout`,
  `:raft/shutdown`; throws `:raft/config` for an address that is none."
  ([node server address] (add-server! node server address nil))
  ([node server address opts]
   (let [target (or (config/address :address address)
                    (config/refuse! :address (str (pr-str address) " is not an address; it must be \"host:port\".")))]
     (change-members! node (if (:learner? opts) :add-learner :add) server target opts))))

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
  when it could not be written, e.g. since the state holds a function; of a `:state-machine` there are none."
  ([node] (snapshot! node nil))
  ([node opts]
   (let [rt (runtime node)]
     (node/request! rt wire/snapshot :snapshot (byte-array 0) (node/timeout-of rt opts)
                    (fn [payload] (.getLong (wire/buffer payload)))))))

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


(defn- answer-summary [^Answer answer]
  (cond
    (not (.isDone answer))             "pending"
    (.isCompletedExceptionally answer) (try (.join answer) nil
                                            (catch Exception e
                                              (str "failed: " (ex-message (or (ex-cause e) e)))))
    :else                              (binding [*print-length* 10, *print-level* 4]
                                         (pr-str (.join answer)))))

(defmethod print-method Answer [answer ^Writer out]
  (.write out (str "#<quorate/Answer " (answer-summary answer) ">")))

(comment
  (def node (start {:this-server "server1", :servers ["server1"], :log-directory "/tmp/quorate-try"
                    :reducer (fn [state {:keys [op key value]} _ctx]
                               (case op
                                 :set [(assoc state key value) :ok]
                                 :get [state (get state key)]))
                    :initial-state {}}))
  node
  (new-entry node {:op :set, :key "foo", :value "bar"} println)
  (new-entry node {:op :get, :key "foo"} println)
  (state node)
  (status node)
  (add-leader-watch node :me (fn [event] (println (:event event) (:new-leader event))))
  @(snapshot! node)
  (close node))
