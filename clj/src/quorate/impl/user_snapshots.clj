(ns quorate.impl.user-snapshots
  "A `:state-machine` with the user's own snapshot functions, in either of fluree's conventions.

  *Source*: the user's functions write, keep, read and cut into parts; the engine's snapshot is a marker that says which
  index they have. *README*: the user's functions give and take the state as a value, which is the engine's snapshot.

  A function that throws, hangs or answers rubbish is reported and tried again by the engine; it costs a snapshot, or holds
  up applying where there is no state to apply to, and never the node."
  (:require [clojure.string :as str]
            [clojure.tools.logging :as log]
            [quorate.impl.config :as config]
            [quorate.impl.conventions :as conventions]
            [quorate.impl.errors :as errors]
            [quorate.impl.machine :as machine]
            [quorate.impl.records]
            [quorate.impl.readme-snapshots :as readme]
            [quorate.impl.snapshot-files :as files]
            [quorate.impl.snapshot-tasks :as tasks]
            [quorate.impl.source-snapshots :as source])
  (:import (java.util.concurrent.atomic AtomicBoolean)
           (quorate.impl.records Entry)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

;; ------------------------------------------------------------------------------------------------ configuration

(def ^:private deciding
  "Functions any of which means that there are to be snapshots."
  [:snapshot-write :snapshot-reify :snapshot-install :snapshot-xfer])

(def present?
  "True when the `:state-machine` of a configuration has snapshot functions."
  config/user-snapshots?)

(defn- shown [kind]
  (if (= :readme kind) "fluree/raft's README" "fluree/raft's source"))

(defn kind
  "The convention, `:source` or `:readme`, of the snapshots of `config`. Throws ex-info `:raft/config` when its functions
  follow different ones."
  [config]
  (let [found (into {} (map (fn [k] [k (conventions/convention config k)]))
                    (filter config [:snapshot-write :snapshot-reify :snapshot-install]))
        kinds (set (vals found))]
    (when (< 1 (count kinds))
      (throw (errors/error :raft/config
                           (str "The snapshot functions follow different conventions: "
                                (str/join ", " (map (fn [[k c]] (str k " follows " (shown c))) found)) ".")
                           {:key :callbacks})))
    (first kinds)))

(defn- needed [config]
  (cond
    (< 1 (count (config/names config))) deciding
    (= :readme (kind config))           [:snapshot-write :snapshot-reify :snapshot-install]
    :else                               [:snapshot-write :snapshot-reify]))

(defn check!
  "Throws ex-info `:raft/config` when some of the snapshot functions that a node of `config` needs are there, and not all: one
  node alone writes and reads its own, several also send and receive. Says once (info) when there are none."
  [config]
  (cond
    (present? config)
    (doseq [k (needed config)
            :when (nil? (get config k))]
      (throw (errors/error :raft/config
                           (str "The configuration has snapshot functions and lacks " k ": " (if (< 1 (count (config/names config))) "one of several servers" "a single server") " needs "
                                (str/join ", " (needed config)) ".")
                           {:key k})))

    (:state-machine config)
    (log/info "The :state-machine has no snapshot functions: its log is kept for ever, and replayed at each start.")))

;; ------------------------------------------------------------------------------------------------------ machine

(defn- restore-marker! [context kind {:keys [index] :as marker}]
  (when-not (= kind (:kind marker))
    (throw (tasks/failure :snapshot-install
                          (str "The snapshot follows " (shown (:kind marker)) ", and this node's functions follow " (shown kind)
                               ". All nodes need the same convention."))))
  ;; A state that came from a newer snapshot than the engine asked for has this one in it.
  (when-not (and (pos? (tasks/index-of context))
                 (<= (long index) (tasks/index-of context)))
    (case kind
      :source (source/restore! context marker)
      :readme (readme/restore! context marker))))

(deftype UserMachine [step kind context]
  machine/Machine
  (step! [_ entry]
    (let [index (.-index ^Entry entry)]
      (if (<= index (tasks/restored-to context))
        machine/result-unknown
        (let [result (machine/step! step entry)]
          (tasks/stepped! context index (.-term ^Entry entry))
          result))))
  (begin-snapshot! [_ path finish!]
    (case kind
      :source (source/begin! context path finish!)
      :readme (readme/begin! context path finish!)))
  (replace! [_ path]
    (try
      (restore-marker! context kind (files/read-marker path))
      (catch Throwable t
        (tasks/report! context t nil)
        (throw t))))
  (current [_]
    (machine/current step))
  (pending-index [_]
    @(:pending context)))

(defn user-machine
  "A machine that steps as `step`, another one, does, and whose snapshots are made by the functions of `config`. Before it is
  used, [[attach!]] it."
  [step config]
  (UserMachine. step (kind config)
                (merge (select-keys config deciding)
                       {:server     (config/server-text (:this-server config))
                        :directory  (files/directory config)
                        :timeout-ms (:snapshot-timeout-ms config config/snapshot-timeout-ms-default)
                        :runtime    (atom {:config config})
                        :position   (long-array 3)
                        :pending    (atom nil)
                        :restored   (promise)
                        :reported   (atom {})
                        :given      (atom nil)
                        :writing    (AtomicBoolean.)})))

(defn- context-of [m]
  (when (instance? UserMachine m)
    (.-context ^UserMachine m)))

(defn attach!
  "Lets the machine `m`, when it is one of users' snapshots, use the runtime `rt`: `:handle :pending :servers :config
  :closed?` and `:status-of`, a function that gives the status."
  [m rt]
  (when-let [{:keys [runtime]} (context-of m)]
    (reset! runtime rt)))

(defn tried!
  "The machine `m` was given the node's newest snapshot, and has read it or not; or there is none."
  [m]
  (when-let [{:keys [restored]} (context-of m)]
    (deliver restored true)))

(defn await-restored!
  "Waits until the machine `m`, when it is one of users' snapshots, was [[tried!]], for `:snapshot-timeout-ms` at
  most."
  [m]
  (when-let [{:keys [restored timeout-ms]} (context-of m)]
    (when (= ::not-yet (deref restored timeout-ms ::not-yet))
      (log/warn "The newest snapshot is still being read; the node is started meanwhile."))))

(defn answer-to
  "The function `(fn [from question] bytes)` that answers questions about the snapshots of `m`; nil when it has none. It calls
  the user's functions, and throws what is to be told to who asks."
  [m]
  (when-let [context (context-of m)]
    (let [kind (.-kind ^UserMachine m)]
      (fn [from {:keys [ask] :as question}]
        (case [kind ask]
          [:source :part]      (source/answer context from question)
          [:readme :installed] (readme/answer context from question)
          (throw (tasks/failure :snapshot-xfer (str "This node, whose functions follow " (shown kind) ", does not know the question "
                                                    (pr-str ask) "."))))))))
