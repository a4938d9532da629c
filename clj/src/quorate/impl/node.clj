(ns quorate.impl.node
  "A running node: its engine, its threads, who waits for what. Its end is in `quorate.impl.closing`.

  Threads, all daemons: `quorate-events-NAME` and `quorate-apply-NAME` poll the engine; `quorate-callbacks-NAME` runs
  callbacks and completes futures, in order; `quorate-watches-NAME` hands changes of the leader to the leader watches, runs
  the watches of keys and writes log lines; `quorate-lane-NAME-n` runs leader watches and `:error-fn`, each in a lane of its
  own; `quorate-monitor-NAME`, `quorate-timers-NAME` and `quorate-snapshot-NAME` are there while they are needed.

  The runtime is a map that never changes; what changes is in atoms and counters inside it."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.codec :as codec]
            [quorate.impl.config :as config]
            [quorate.impl.errors :as errors]
            [quorate.impl.lanes :as lanes]
            [quorate.impl.loops :as loops]
            [quorate.impl.machine :as machine]
            [quorate.impl.monitor :as monitor]
            [quorate.impl.pending :as pending]
            [quorate.impl.raft-state :as raft-state]
            [quorate.impl.registered :as registered]
            [quorate.impl.report :as report]
            [quorate.impl.runner :as runner]
            [quorate.impl.session :as session]
            [quorate.impl.watches :as watches]
            [quorate.impl.wire :as wire])
  (:import (java.util.concurrent.atomic AtomicBoolean AtomicLong)
           (quorate.impl Answer)
           (quorate.impl.records Entry)))

(set! *warn-on-reflection* true)

(def ^:private ^:const watch-tasks-max "Tasks that wait for the watches' thread: one a watch (WATCHES_MAX in limits.rs is 4,096), log lines up to a lower mark, and
  leader events." 16384)
(def ^:private ^:const asides-max "Values that wait for the callbacks thread beside the answers to submissions." 65536)

;; -------------------------------------------------------------------------------------------------- what it is

(defn closed?
  "True from the moment that close was called."
  [rt]
  (.get ^AtomicBoolean (:closing rt)))

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
                   :members (mapv #(update % :name (partial server rt)) (:members raw))
                   :callbacks-waiting (pending/waiting (:pending rt)))
      @(:last-error rt) (assoc :last-error @(:last-error rt))
      (monitor/on? (:monitor rt)) (assoc :monitor-dropped (monitor/dropped (:monitor rt)))
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

(defn- register! [rt kind body timeout-ms waiter]
  (when (closed? rt)
    (throw (errors/from-code 1 "The node is closed.")))
  (pending/register! (:pending rt)
                     (fn [] (session/submit! (:handle rt) kind body timeout-ms))
                     waiter))

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
  [rt]
  (= :strict (:compat (:config rt))))

(defn- entry-failure [rt ticket code message id]
  (let [entry-id (entry-id rt ticket)]
    (errors/from-code code message (cond-> {:operation :new-command, :id (if (nil? id) entry-id id)}
                                     (some? id) (assoc :entry-id entry-id)))))

(deftype EntryWaiter [rt callback persist id]
  pending/Waiter
  (done! [_ result]
    (call! rt persist true)
    (call! rt callback result))
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

;; ------------------------------------------------------------------------------------------------------ events

(defn- changed-by
  "The leadership after `change`, for the raft state that a state machine gets."
  [leadership {:keys [role term new-leader]}]
  (assoc leadership :status role, :term term, :leader new-leader))

(defn- change-of
  "The engine's map, with the user's server names."
  [rt text]
  (-> (codec/read-text (wire/utf-8 text))
      (update :old-leader #(server rt %))
      (update :new-leader #(server rt %))
      (update :server #(server rt %))))

(defn- leader-changed! [{:keys [leadership last-raft-state] :as rt} watchers text]
  (let [started (System/nanoTime)
        change  (change-of rt text)
        old     @last-raft-state
        new     (merge (raft-state rt)
                       {:status (:role change), :term (:term change), :leader (:new-leader change)})]
    (swap! leadership changed-by change)
    (reset! last-raft-state new)
    (watches/notify! rt watchers (watches/leader-event change old new))
    (monitored! rt (:cause change) (dissoc change :event :old-role) started)))

(defn- leader-event!
  "Whoever watches now is told of the change of leader; who comes later is not."
  [{:keys [leader-watches watches] :as rt} text]
  (let [watchers @leader-watches]
    (when-not (runner/offer! watches (fn [] (leader-changed! rt watchers text)))
      (log/warn "The watches of" (:name rt) "do not keep up: a change of leader was not reported:" text))))

(defn- watch-event!
  "Hands the event to the watch's own function, registered by `quorate.impl.kv-watches`; one that is not there any more is
  not told. May be ahead of the registration, so it waits for those that are under way."
  [{:keys [kv-watches pending]} watch event]
  (let [deliver! (or (get @kv-watches watch)
                     (do (pending/quiesce! pending)
                         (get @kv-watches watch)))]
    (when deliver!
      (deliver! event))))

(defn- entry-applied! [{:keys [registered] :as rt} ^Entry entry result]
  (when (and (registered/waiting? registered) (codec/command? (.-body entry)))
    (registered/applied! registered (codec/command-id (.-body entry)) result (partial pass! rt))))

(defn- progressed! [{:keys [monitor ^AtomicLong applied leadership] :as rt}]
  (when (monitor/on? monitor)
    (monitor/progress! monitor rt (:state-now rt) @leadership (.get applied))))

;; ------------------------------------------------------------------------------------------------------- start

(defn- state-for-entry
  "What makes the raft state that a state machine in fluree's way gets with an entry."
  [base leadership]
  (fn [^Entry entry]
    (let [index (.-index entry)]
      (-> (merge base @leadership)
          (assoc :term (.-term entry), :index index, :commit index, :latest-index index)))))

(defn- machine-for [{:keys [reducer state-machine initial-state]} base leadership]
  (cond
    reducer       (machine/reducer-machine reducer initial-state)
    state-machine (machine/function-machine state-machine (state-for-entry base leadership))
    :else         nil))

(defn- assembled
  "The runtime of the open engine `handle`, with no thread of its own polling yet."
  [config handle]
  (let [this       (:this-server config)
        text       (config/server-text this)
        others     (vec (remove #{this} (config/names config)))
        leadership (atom {:status :follower, :leader nil, :term 0})
        base       {:config config, :this-server this, :other-servers others}
        callbacks  (runner/runner (str "quorate-callbacks-" text) Integer/MAX_VALUE)
        pool       (lanes/pool (str "quorate-lane-" text))]
    (merge base
           {:handle          handle
            :name            text
            :servers         (into {} (map (juxt config/server-text identity)) (config/names config))
            :identity        (atom nil)
            :machine         (machine-for config base leadership)
            :pending         (pending/pending)
            :applied         (AtomicLong.)
            :problem         (atom nil)
            :last-error      (atom nil)
            :closing         (AtomicBoolean.)
            :ended           (promise)
            :last-status     (atom {})
            :leadership      leadership
            :leader-watches  (atom {})
            :last-raft-state (atom nil)
            :kv-watches      (atom {})
            :callbacks       callbacks
            :asides          (AtomicLong.)
            :pool            pool
            :error-lane      (lanes/lane pool)
            :registered      (registered/registered (str "quorate-timers-" text))
            :monitor         (monitor/slot)
            :pending-server  (atom nil)
            :watches         (runner/runner (str "quorate-watches-" text) watch-tasks-max)
            :threads         (atom [])})))

(defn- with-questions
  "What the raft state and the monitor ask the runtime for."
  [{:keys [callbacks registered monitor] :as rt}]
  (let [rt (assoc rt
                  :bringers       (into-array Thread [(runner/thread callbacks)])
                  :closed?        (fn [] (closed? rt))
                  :deliver!       (fn [_message] (errors/error :raft/invalid "This node's messages go by its own transport."))
                  :registered-ids (fn [] (registered/ids registered))
                  :monitor-fn     (fn [] (monitor/monitor-fn monitor)))]
    (assoc rt :state-now (fn [] (raft-state rt)))))

(defn- with-hooks [rt]
  (let [rt (with-questions rt)]
    (assoc rt
           :on-leader    (fn [text] (leader-event! rt text))
           :on-watch     (fn [watch event] (watch-event! rt watch event))
           :on-applied   (fn [entry result] (entry-applied! rt entry result))
           :on-progress  (fn [] (progressed! rt))
           :on-monitored (fn [op data] (monitored! rt op data (System/nanoTime))))))

(defn- start-threads! [rt]
  (swap! (:threads rt) conj (loops/start-events! rt))
  (when (:machine rt)
    (swap! (:threads rt) conj (loops/start-applies! rt))))

(defn start
  "Opens the engine for `config`, [[config/checked]], and starts the node's threads. Returns the runtime. Throws ex-info."
  [config]
  (let [handle (session/open (config/for-engine config))]
    (try
      (let [rt (with-hooks (assembled config handle))]
        (when-let [f (:leader-change-fn config)]
          (watches/add! rt watches/default-key f nil))
        (reset! (:last-raft-state rt) (raft-state rt))
        (start-threads! rt)
        rt)
      (catch Throwable t
        (session/close! handle)
        (throw t)))))
