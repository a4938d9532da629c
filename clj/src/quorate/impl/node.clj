(ns quorate.impl.node
  "A running node: what it knows, and who waits for what. It begins in `quorate.impl.opening` and ends in
  `quorate.impl.closing`.

  Threads, all daemons: `quorate-events-NAME` and `quorate-apply-NAME` poll the engine; `quorate-callbacks-NAME` runs
  callbacks and completes futures, in order; `quorate-watches-NAME` hands changes of the leader to the leader watches, runs
  the watches of keys and writes log lines; `quorate-lane-NAME-n` runs leader watches and `:error-fn`, each in a lane of its
  own; `quorate-monitor-NAME`, `quorate-timers-NAME` and `quorate-snapshot-NAME` are there while they are needed;
  `quorate-transfer-NAME` gives users' snapshots to other nodes; `quorate-send-NAME-SERVER` calls a user's `:send-rpc-fn`.

  The runtime is a map that never changes; what changes is in atoms and counters inside it. It is a record of what each
  submission and each answer looks at, and of whatever else the opening puts into it."
  (:require [quorate.impl.codec :as codec]
            [quorate.impl.courier :as courier]
            [quorate.impl.errors :as errors]
            [quorate.impl.machine :as machine]
            [quorate.impl.monitor :as monitor]
            [quorate.impl.pending :as pending]
            [quorate.impl.raft-state :as raft-state]
            [quorate.impl.report :as report]
            [quorate.impl.runner :as runner]
            [quorate.impl.session :as session]
            [quorate.impl.wire :as wire])
  (:import (java.util.concurrent.atomic AtomicBoolean AtomicLong)
           (quorate.impl Answer)))

(set! *warn-on-reflection* true)

(def ^:private ^:const asides-max "Values that wait for the callbacks thread beside the answers to submissions." 65536)

;; -------------------------------------------------------------------------------------------------- what it is

(defrecord Inside [handle pending closing machine config monitor callbacks applied registered validate strict?])

(defn runtime
  "The map `m` as a runtime."
  [{:keys [config] :as m}]
  (map->Inside (assoc m :validate (:validate config), :strict? (= :strict (:compat config)))))

(defn closed?
  "True from the moment that close was called."
  [^Inside rt]
  (.get ^AtomicBoolean (.-closing rt)))

(defn server
  "The server's name as the user wrote it, for one as the engine has it; nil for nil. One that joined later is a keyword when
  all configured ones are."
  [{:keys [servers] :as rt} text]
  (or (get servers text)
      (if (and text (every? keyword? (vals servers)))
        (keyword text)
        text)))

(defn- identity-of
  "The id of this node and of its present life; nil while it has none, since it has not found its cluster."
  [handle]
  (try
    (let [in   (wire/buffer (session/control handle wire/op-identity (byte-array 0)))
          node (.getLong in)]
      {:node node, :incarnation (.getLong in)})
    (catch clojure.lang.ExceptionInfo _
      nil)))

(defn ask-identity!
  "The present identity; the last one known when the engine gives none."
  [rt]
  (swap! (:identity rt) #(or (identity-of (:handle rt)) %)))

(defn entry-id
  "The id, a string, of the submission that has `ticket`; nil when the node has had no identity yet, and so has sent
  nothing."
  [rt ticket]
  (when-let [{:keys [node incarnation]} (if (closed? rt) @(:identity rt) (ask-identity! rt))]
    (machine/id-text node incarnation ticket)))

(defn live-status
  "The engine's status as it is. Throws ex-info `:raft/shutdown`."
  [rt]
  (codec/read-text (session/control (:handle rt) wire/op-status (byte-array 0))))

(defn- applied-index
  "Of a machine in the JVM this side knows first: the engine learns it with the next poll."
  [{:keys [machine ^AtomicLong applied]} {:keys [index]}]
  (if (and machine index)
    (max (long index) (.get applied))
    index))

(defn status
  "The engine's status with the user's server names; after close the last one, with `:role :closed`."
  [rt]
  (let [raw (if (closed? rt)
              @(:last-status rt)
              (try (reset! (:last-status rt) (live-status rt))
                   (catch clojure.lang.ExceptionInfo e
                     (if (= :raft/shutdown (:error (ex-data e)))
                       @(:last-status rt)
                       (throw e)))))]
    (cond-> (assoc raw
                   :index   (applied-index rt raw)
                   :name    (server rt (:name raw))
                   :leader  (server rt (:leader raw))
                   :voted-for (server rt (:voted-for raw))
                   :members (mapv #(update % :name (partial server rt)) (:members raw))
                   :callbacks-waiting (pending/waiting (:pending rt)))
      @(:last-error rt) (assoc :last-error @(:last-error rt))
      (:courier rt)  (assoc :messages-dropped (courier/dropped (:courier rt)))
      (monitor/on? (:monitor rt)) (assoc :monitor-dropped (monitor/dropped (:monitor rt)))
      @(:last-error rt) (assoc :last-error @(:last-error rt))
      @(:problem rt) (assoc :problem @(:problem rt))
      (closed? rt)   (assoc :role :closed, :leader nil))))

(defn raft-state
  "The raft state as of now."
  [rt]
  (raft-state/raft-state rt (status rt)))

(defn monitored!
  "Tells the monitor, if there is one, of the event `[op data]`, which began at `started-ns`."
  [rt op data started-ns]
  (when (monitor/on? (:monitor rt))
    (monitor/event! (:monitor rt) rt (:state-now rt) op data started-ns)))

;; ------------------------------------------------------------------------------------------------- submissions

(defn check-timeout
  "`timeout-ms` when it is a positive whole number, else throws ex-info `:raft/invalid`."
  [timeout-ms]
  (if (pos-int? timeout-ms)
    timeout-ms
    (throw (errors/error :raft/invalid
                         (str "A timeout must be a positive whole number of milliseconds, not " (pr-str timeout-ms) ".")
                         {:timeout-ms timeout-ms}))))

(defn- check-open [rt]
  (when (closed? rt)
    (throw (errors/from-code 1 "The node is closed."))))

(defn- register! [^Inside rt kind body timeout-ms waiter]
  (check-open rt)
  (pending/registering (.-pending rt) (session/submit! (.-handle rt) kind body timeout-ms) waiter))

(defn call!
  "Calls the user's `callback`, unless it is nil, with `x`. What it throws is reported."
  [rt callback x]
  (when callback
    (report/reported [rt :callback] (callback x))))

(defn pass!
  "Has `callback`, which may be nil, called with `x` on the callbacks thread; here when that has ended. Throws ex-info
  `:raft/overloaded` when too many such calls wait."
  [{:keys [callbacks ^AtomicLong asides] :as rt} callback x]
  (when callback
    (when (> (.incrementAndGet asides) asides-max)
      (.decrementAndGet asides)
      (throw (errors/error :raft/overloaded (str asides-max " calls wait for the callbacks thread.") {:limit asides-max})))
    (let [run! (fn []
                 (.decrementAndGet asides)
                 (call! rt callback x))]
      (when-not (runner/offer! callbacks run!)
        (run!))))
  true)

(defn strict?
  "True when the configuration asks for fluree/raft's own behaviour."
  [^Inside rt]
  (.-strict? rt))

(defn- entry-failure [rt ticket code message id]
  (let [entry-id (entry-id rt ticket)]
    (errors/from-code code message (cond-> {:operation :new-command, :id (if (nil? id) entry-id id)}
                                     (some? id) (assoc :entry-id entry-id)))))

(deftype EntryWaiter [rt callback persist id]
  pending/Waiter
  (done! [_ result]
    (when persist (call! rt persist true))
    (when callback (call! rt callback result)))
  (failed! [_ ticket code message]
    (when (or callback persist)
      (let [failure (entry-failure rt ticket code message id)]
        (call! rt persist failure)
        (when-not (and (strict? rt) (= :raft/not-leader (:error (ex-data failure))))
          (call! rt callback failure))))))

(defn submit-entry!
  "Submits `body` as a command. `callback` gets the result or an ex-info, once; before it `persist` gets true, or the same
  ex-info, in which `id` names the entry unless it is nil. Both may be nil. Returns the ticket. Throws what
  [[session/submit!]] throws, and then nothing was registered."
  ([rt body callback timeout-ms] (submit-entry! rt body callback nil nil timeout-ms))
  ([rt ^bytes body callback persist id timeout-ms]
   (register! rt wire/command body timeout-ms (EntryWaiter. rt callback persist id))))

(defn submit-bytes!
  "As [[submit-entry!]], of a command that is a byte array, [[codec/check-bytes]], without an id."
  [^Inside rt ^bytes entry callback persist timeout-ms]
  (check-open rt)
  (pending/registering (.-pending rt)
                       (session/submit-bytes! (.-handle rt) entry timeout-ms)
                       (EntryWaiter. rt callback persist nil)))

(deftype RequestWaiter [operation ^Answer answer decode]
  pending/Waiter
  (done! [_ payload]
    (try
      (.complete answer (decode payload))
      (catch Throwable t
        (.completeExceptionally answer t))))
  (failed! [_ _ticket code message]
    (.completeExceptionally answer (errors/from-code code message {:operation operation}))))

(defn answer
  "An open [[Answer]] that the node's own threads refuse to wait for."
  ^Answer [rt]
  (Answer. (:bringers rt)))

(defn request!
  "Submits `body` as `kind`. Returns a CompletableFuture of `(decode payload)`, on which `operation` names failures. Throws
  when it is refused at once."
  ^Answer [rt kind operation ^bytes body timeout-ms decode]
  (let [answer (answer rt)]
    (register! rt kind body timeout-ms (RequestWaiter. operation answer decode))
    answer))

(defn timeout-of
  "The `:timeout-ms` of `opts`, checked, or the node's default."
  [rt opts]
  (check-timeout (get opts :timeout-ms (:default-command-timeout (:config rt)))))

(defn consistency-of
  "The number of the `:consistency` of `opts`; linearizable when there is none. Throws ex-info `:raft/invalid`."
  [opts]
  (let [asked (:consistency opts :linearizable)]
    (or (get wire/consistencies asked)
        (throw (errors/error :raft/invalid
                             (str ":consistency must be :linearizable, :lease or :local, not " (pr-str asked) "."))))))

(defn barrier!
  "A CompletableFuture of the index that this node has applied when everything committed before now is."
  ^Answer [rt opts]
  (request! rt wire/barrier :sync
            (wire/built (wire/u8! (wire/sink) (consistency-of opts)))
            (timeout-of rt opts)
            (fn [payload] (.getLong (wire/buffer payload)))))

(defn control
  "The engine's answer to `op`, at once."
  ^bytes [rt op body]
  (session/control (:handle rt) op body))
