(ns quorate.impl.opening
  "The beginning of a node: its engine, its threads, and what they call when something happens."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.codec :as codec]
            [quorate.impl.config :as config]
            [quorate.impl.courier :as courier]
            [quorate.impl.lanes :as lanes]
            [quorate.impl.loops :as loops]
            [quorate.impl.machine :as machine]
            [quorate.impl.monitor :as monitor]
            [quorate.impl.node :as node]
            [quorate.impl.pending :as pending]
            [quorate.impl.raft-state :as raft-state]
            [quorate.impl.registered :as registered]
            [quorate.impl.runner :as runner]
            [quorate.impl.session :as session]
            [quorate.impl.transfer :as transfer]
            [quorate.impl.user-snapshots :as user-snapshots]
            [quorate.impl.watches :as watches]
            [quorate.impl.wire :as wire])
  (:import (java.util.concurrent.atomic AtomicBoolean AtomicLong)
           (quorate.impl LazyMap Span)
           (quorate.impl.node Inside)
           (quorate.impl.records Entry)))

(set! *warn-on-reflection* true)

(def ^:private ^:const watch-tasks-max
  "Tasks that wait for the watches' thread: one a watch (WATCHES_MAX in limits.rs is 4,096), log lines up to a lower mark, and
  leader events."
  16384)

;; ------------------------------------------------------------------------------------------------------ events

(defn- changed-by
  "The leadership after `change`, for the raft state that a state machine gets."
  [leadership {:keys [role term new-leader]}]
  (assoc leadership :status role, :term term, :leader new-leader))

(defn- change-of
  "The engine's map, with the user's server names."
  [rt text]
  (-> (codec/read-text (wire/utf-8 text))
      (update :old-leader #(node/server rt %))
      (update :new-leader #(node/server rt %))
      (update :server #(node/server rt %))))

(defn- leader-changed! [{:keys [leadership last-raft-state] :as rt} watchers text]
  (let [started (System/nanoTime)
        change  (change-of rt text)
        old     @last-raft-state
        new     (merge (node/raft-state rt)
                       {:status (:role change), :term (:term change), :leader (:new-leader change)})]
    (swap! leadership changed-by change)
    (reset! last-raft-state new)
    (watches/notify! rt watchers (watches/leader-event change old new))
    (node/monitored! rt (:cause change) (dissoc change :event :old-role) started)))

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

(defn- entry-applied!
  "Called for each entry with its body: whoever registered for its id is told."
  [^Inside rt ^Span body result]
  (let [registered (.-registered rt)]
    (when (and (registered/waiting? registered)
               (codec/command? body)
               (not (identical? machine/result-unknown result)))
      (registered/applied! registered (codec/command-id body) result (partial node/pass! rt)))))

(defn- installed! [{:keys [machine] :as rt} index failure]
  (user-snapshots/tried! machine)
  (node/monitored! rt :install-snapshot {:snapshot-index index, :success (nil? failure)} (System/nanoTime)))

(defn- progressed! [{:keys [monitor ^AtomicLong applied leadership] :as rt}]
  (when (monitor/on? monitor)
    (monitor/progress! monitor rt (:state-now rt) @leadership (.get applied))))

;; ------------------------------------------------------------------------------------------------------- start

(defn- state-for-entry
  "What makes the raft state that a state machine in fluree's way gets with an entry."
  [base leadership]
  (fn [^Entry entry]
    (let [leads @leadership
          term  (.-term entry)
          index (.-index entry)]
      (LazyMap. (fn [leads] (assoc (merge base leads) :term term, :index index, :commit index, :latest-index index)) leads))))

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
        callbacks  (runner/runner (str "quorate-callbacks-" text) Integer/MAX_VALUE)
        pool       (lanes/pool (str "quorate-lane-" text))]
    (node/runtime
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
             :transfers       (delay (runner/runner (str "quorate-transfer-" text) transfer/questions-max))
            :threads         (atom [])}))))

(defn- with-questions
  "What the raft state and the monitor ask the runtime for."
  [{:keys [callbacks registered monitor] :as rt}]
  (let [rt (assoc rt
                  :bringers       (into-array Thread [(runner/thread callbacks)])
                  :closed?        (fn [] (node/closed? rt))
                  :registered-ids (fn [] (registered/ids registered))
                  :monitor-fn     (fn [] (monitor/monitor-fn monitor)))]
    (assoc rt
           :status-of (fn [] (node/status rt))
           :state-now (fn [] (node/raft-state rt)))))

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

(defn- with-hooks [rt]
  (let [{:keys [machine] :as rt} (with-questions rt)]
    (user-snapshots/attach! machine rt)
    (assoc (with-courier rt)
           :on-leader    (fn [text] (leader-event! rt text))
           :on-watch     (fn [watch event] (watch-event! rt watch event))
           :on-applied   (fn [body result] (entry-applied! rt body result))
           :on-progress  (fn [] (progressed! rt))
           :on-installed (fn [index failure] (installed! rt index failure))
           :on-ask       (let [answer-to (user-snapshots/answer-to machine)]
                           (fn [ticket from question] (transfer/asked! rt answer-to ticket from question))))))

(defn- start-threads! [rt]
  (swap! (:threads rt) conj (loops/start-events! rt))
  (when (:machine rt)
    (swap! (:threads rt) conj (loops/start-applies! rt))))

(def ^:private ^:const disk-wait-ms "How long start waits for a log that is there to be open." 10000)
(def ^:private ^:const disk-look-ms "How often it looks." 2)

(defn- read-from-disk?
  "True when `status` has what the disk held, or never will. A node that belongs to no cluster yet has nothing there. A problem
  may be that of a user's snapshot, when there is one, which keeps no log from being opened."
  [{:keys [cluster-id problem term last-log-index] :as status} users-snapshot?]
  (or (nil? cluster-id)
      (and (some? problem) (not users-snapshot?))
      (and (contains? status :last-log-index)
           (or (nil? last-log-index) (pos? (long term))))))

(defn- await-disk!
  "Waits until the status has what the disk held, for [[disk-wait-ms]] at most."
  [rt users-snapshot?]
  (let [end (+ (System/nanoTime) (* 1000000 (long disk-wait-ms)))]
    (loop []
      (when-not (or (read-from-disk? (node/status rt) users-snapshot?) (> (System/nanoTime) end))
        (Thread/sleep (long disk-look-ms))
        (recur)))))

(defn- snapshot? [rt]
  (pos? (long (:snapshot-index (node/status rt) 0))))

(defn start
  "Opens the engine for `config`, [[config/checked]], and starts the node's threads. Returns the runtime. Throws ex-info."
  [config]
  (user-snapshots/check! config)
  (let [handle (session/open (config/for-engine config))]
    (try
      (let [rt (with-hooks (assembled config handle))]
        (when-let [f (:leader-change-fn config)]
          (watches/add! rt watches/default-key f nil))
        (reset! (:last-raft-state rt) (node/raft-state rt))
        (let [snapshot? (snapshot? rt)]
          (when-not snapshot?
            (user-snapshots/tried! (:machine rt)))
          (start-threads! rt)
          (await-disk! rt (and snapshot? (user-snapshots/present? config)))
          (user-snapshots/await-restored! (:machine rt)))
        rt)
      (catch Throwable t
        (session/close! handle)
        (throw t)))))
