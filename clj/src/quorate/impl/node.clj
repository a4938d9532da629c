(ns quorate.impl.node
  "A running node: its engine, its threads, who waits for what, and its end.

  Threads, all daemons: `quorate-events-NAME` and `quorate-apply-NAME` poll the engine; `quorate-callbacks-NAME` runs
  callbacks and completes futures, in order; `quorate-watches-NAME` runs watches and writes log lines;
  `quorate-snapshot-NAME` lives while a snapshot is written; `quorate-transfer-NAME` gives users' snapshots to other nodes;
  `quorate-send-NAME-SERVER` calls a user's `:send-rpc-fn`.

  The runtime is a map that never changes; what changes is in atoms and counters inside it."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.codec :as codec]
            [quorate.impl.config :as config]
            [quorate.impl.courier :as courier]
            [quorate.impl.errors :as errors]
            [quorate.impl.loops :as loops]
            [quorate.impl.machine :as machine]
            [quorate.impl.pending :as pending]
            [quorate.impl.runner :as runner]
            [quorate.impl.session :as session]
            [quorate.impl.transfer :as transfer]
            [quorate.impl.user-snapshots :as user-snapshots]
            [quorate.impl.watches :as watches]
            [quorate.impl.wire :as wire])
  (:import (java.util.concurrent.atomic AtomicBoolean AtomicLong)
           (quorate.impl Answer)
           (quorate.impl.records Entry)))

(set! *warn-on-reflection* true)

(def ^:private ^:const watch-tasks-max "Tasks that wait for the watches' thread: one a watch (WATCHES_MAX in limits.rs is 4,096), log lines up to a lower mark, and
  leader events." 16384)
(def ^:private ^:const join-ms "How long a close waits for each thread." 5000)

;; -------------------------------------------------------------------------------------------------- what it is

(defn closed?
  "True from the moment that close was called."
  [rt]
  (.get ^AtomicBoolean (:closing rt)))

(defn server
  "The server's name as the user wrote it, for one as the engine has it; nil for nil."
  [rt text]
  (get (:servers rt) text text))

(defn- identity-of
  "The id of this node and of its present life; nil while it has none, since it has not found its cluster."
  [handle]
  (try
    (let [in   (wire/buffer (session/control handle wire/op-identity (byte-array 0)))
          node (.getLong in)]
      {:node node, :incarnation (.getLong in)})
    (catch clojure.lang.ExceptionInfo _
      nil)))

(defn- ask-identity!
  "The present identity; the last one known when the engine gives none."
  [rt]
  (swap! (:identity rt) #(or (identity-of (:handle rt)) %)))

(defn entry-id
  "The id, a string, of the submission that has `ticket`; nil when the node has had no identity yet, and so has sent
  nothing."
  [rt ticket]
  (when-let [{:keys [node incarnation]} (if (closed? rt) @(:identity rt) (ask-identity! rt))]
    (machine/id-text node incarnation ticket)))

(defn- live-status [rt]
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
      @(:problem rt) (assoc :problem @(:problem rt))
      (closed? rt)   (assoc :role :closed, :leader nil))))

(defn- member-entry [{:keys [name] :as member}]
  [name (merge {:vote nil, :next-index nil, :match-index (:matched-log-index member), :snapshot-index nil, :stats {}}
               (dissoc member :name))])

(defn raft-state
  "fluree's raft state out of a status: `:index`, `:commit` and `:latest-index` are the index that users see."
  [rt {:keys [role term leader index members snapshot-index voted-for] :as full}]
  {:id               (:id full)
   :config           (:config rt)
   :this-server      (:this-server rt)
   :other-servers    (:other-servers rt)
   :status           role
   :leader           leader
   :term             term
   :index            index
   :commit           index
   :latest-index     index
   :snapshot-index   snapshot-index
   :snapshot-term    nil
   :snapshot-pending (some-> (:machine rt) machine/pending-index)
   :voted-for        voted-for
   :timeout-ms       (:timeout-ms (:config rt))
   :servers          (into {} (map member-entry) members)})

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

(deftype EntryWaiter [rt callback]
  pending/Waiter
  (done! [_ result]
    (when callback (callback result)))
  (failed! [_ ticket code message]
    (when callback
      (callback (errors/from-code code message {:operation :new-command, :id (entry-id rt ticket)})))))

(defn submit-entry!
  "Submits `body` as a command; `callback`, which may be nil, gets the result or an ex-info, once. Returns the ticket. Throws
  what [[session/submit!]] throws, and then nothing was registered."
  [rt ^bytes body callback timeout-ms]
  (register! rt wire/command body timeout-ms (EntryWaiter. rt callback)))

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

(defn- leader-changed! [{:keys [leadership leader-watches last-raft-state] :as rt} text]
  (let [change (-> (codec/read-text (wire/utf-8 text))
                   (update :old-leader #(server rt %))
                   (update :new-leader #(server rt %))
                   (update :server #(server rt %)))
        old    @last-raft-state
        new    (merge (raft-state rt (status rt))
                      {:status (:role change), :term (:term change), :leader (:new-leader change)})]
    (swap! leadership changed-by change)
    (reset! last-raft-state new)
    (watches/notify! @leader-watches (watches/leader-event change old new))))

(defn- watch-event!
  "Hands the event to the watch's own function, registered by `quorate.impl.kv-watches`; one that is not there any more is
  not told. May be ahead of the registration, so it waits for those that are under way."
  [{:keys [kv-watches pending]} watch event]
  (let [deliver! (or (get @kv-watches watch)
                     (do (pending/quiesce! pending)
                         (get @kv-watches watch)))]
    (when deliver!
      (deliver! event))))

;; ------------------------------------------------------------------------------------------------------- start

(defn- state-for-entry
  "What makes the raft state that a state machine in fluree's way gets with an entry."
  [base leadership]
  (fn [^Entry entry]
    (let [index (.-index entry)]
      (-> (merge base @leadership)
          (assoc :term (.-term entry), :index index, :commit index, :latest-index index)))))

(defn- machine-for [{:keys [this-server reducer state-machine initial-state] :as config} base leadership]
  (cond
    reducer       (machine/reducer-machine (config/server-text this-server) reducer initial-state)
    state-machine (cond-> (machine/function-machine state-machine (state-for-entry base leadership))
                    (user-snapshots/present? config) (user-snapshots/user-machine config))
    :else         nil))

(defn- assembled
  "The runtime of the open engine `handle`, with no thread of its own polling yet."
  [config handle]
  (let [this       (:this-server config)
        text       (config/server-text this)
        others     (vec (remove #{this} (config/names config)))
        leadership (atom {:status :follower, :leader nil, :term 0})
        base       {:config config, :this-server this, :other-servers others}
        callbacks  (runner/runner (str "quorate-callbacks-" text) Integer/MAX_VALUE)]
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
            :watches         (runner/runner (str "quorate-watches-" text) watch-tasks-max)
            :transfers       (delay (runner/runner (str "quorate-transfer-" text) transfer/questions-max))
            :threads         (atom [])})))

(defn- state-for-sending
  "What makes the raft state that a user's `:send-rpc-fn` gets with each message: as of the last change of leader, with the
  index of now."
  [{:keys [last-raft-state leadership ^AtomicLong applied]}]
  (fn []
    (let [index (.get applied)]
      (-> (merge @last-raft-state @leadership)
          (assoc :index index, :commit index, :latest-index index)))))

(defn- with-courier [rt]
  (let [courier (courier/courier rt (state-for-sending rt))]
    (assoc rt
           :courier     courier
           :on-datagram (if courier
                          (fn [server data] (courier/send! courier server data))
                          (fn [_ _] nil)))))

(defn- with-hooks [{:keys [callbacks machine] :as rt}]
  (let [bringers (into-array Thread [(runner/thread callbacks)])
        rt       (assoc rt :bringers bringers, :closed? (fn [] (closed? rt)), :status-of (fn [] (status rt)))]
    (user-snapshots/attach! machine rt)
    (assoc (with-courier rt)
           :on-leader (fn [text] (leader-changed! rt text))
           :on-watch  (fn [watch event] (watch-event! rt watch event))
           :on-installed (fn [_index _failure] (user-snapshots/tried! machine))
           :on-ask    (let [answer-to (user-snapshots/answer-to machine)]
                        (fn [ticket from question] (transfer/asked! rt answer-to ticket from question))))))

(defn- start-threads! [rt]
  (swap! (:threads rt) conj (loops/start-events! rt))
  (when (:machine rt)
    (swap! (:threads rt) conj (loops/start-applies! rt))))

(defn start
  "Opens the engine for `config`, [[config/checked]], and starts the node's threads. Returns the runtime. Throws ex-info."
  [config]
  (user-snapshots/check! config)
  (let [handle (session/open (config/for-engine config))]
    (try
      (let [rt (with-hooks (assembled config handle))]
        (when-let [f (:leader-change-fn config)]
          (swap! (:leader-watches rt) assoc watches/default-key {:f f}))
        (let [at-open (status rt)]
          (reset! (:last-raft-state rt) (raft-state rt at-open))
          (when (zero? (:snapshot-index at-open 0))
            (user-snapshots/tried! (:machine rt)))
          (start-threads! rt)
          (when (user-snapshots/await-restored! (:machine rt))
            (reset! (:last-raft-state rt) (raft-state rt (status rt)))))
        rt)
      (catch Throwable t
        (session/close! handle)
        (throw t)))))

;; --------------------------------------------------------------------------------------------------------- end

(defn- join-threads! [rt]
  (doseq [^Thread thread @(:threads rt)
          :when (not (identical? thread (Thread/currentThread)))]
    (.join thread join-ms)
    (when (.isAlive thread)
      (log/warn "The thread" (.getName thread) "is still busy; the node is closed without it."))))

(defn- answer-the-rest!
  "Whoever still waits is told that the node is shut down."
  [{:keys [pending callbacks]}]
  (let [rest   (pending/take-all! pending)
        tell!  (fn []
                 (doseq [[ticket waiter] rest]
                   (runner/guarded "A callback threw." (pending/failed! waiter ticket 1 "The node was closed."))
                   (pending/settled! pending 1)))]
    (when-not (runner/offer! callbacks tell!)
      (tell!))))

(defn- close-engine! [rt]
  (try
    (session/close! (:handle rt))
    (catch Throwable t
      (log/error t "The engine of" (:name rt) "did not close in order."))))

(defn- closed-by-user [config]
  (if-let [f (:close-fn config)]
    (runner/guarded ":close-fn threw." (f))
    :closed))

(defn- remember-last!
  "Keeps what can be asked of a closed node: its last status and its identity. That there is none is no reason not to
  close."
  [rt]
  (ask-identity! rt)
  (try
    (reset! (:last-status rt) (live-status rt))
    (catch clojure.lang.ExceptionInfo e
      (log/debug e "The last status of" (:name rt) "is not known."))))

(defn- stop-transfers! [{:keys [transfers]}]
  (when (realized? transfers)
    (runner/stop! @transfers join-ms)))

(defn close!
  "Closes the engine, answers whoever waits, ends the threads, calls `:close-fn`. Returns what that returns, or `:closed`;
  the same again when it is called again. Takes seconds at most."
  [{:keys [callbacks watches ended] :as rt}]
  (if (.compareAndSet ^AtomicBoolean (:closing rt) false true)
    (do
      (remember-last! rt)
      (close-engine! rt)
      (join-threads! rt)
      (courier/stop! (:courier rt) join-ms)
      (stop-transfers! rt)
      (answer-the-rest! rt)
      (let [result (closed-by-user (:config rt))]
        (runner/stop! callbacks join-ms)
        (runner/stop! watches join-ms)
        (deliver ended result)
        result))
    (if (or (runner/mine? callbacks) (runner/mine? watches))
      (if (realized? ended) @ended :closed)
      (deref ended (* 5 join-ms) :closed))))
