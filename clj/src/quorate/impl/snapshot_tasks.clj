(ns quorate.impl.snapshot-tasks
  "What both conventions of users' snapshots share: what a machine knows of itself, a guarded call of a user's function, the
  report of a failure, and a snapshot under a deadline.

  A *context* is a map: the user's functions by their keys, `:server` (this node's name as the engine has it), `:directory`,
  `:timeout-ms`, `:runtime` (an atom: a configuration, later the node's runtime), `:position` (a long array, written by the
  apply thread only: index and term of the last entry, index up to which entries are in the state already), `:pending` (an
  atom: the index that is being written), `:restored` (a promise), `:reported` (an atom)."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.errors :as errors]
            [quorate.impl.machine :as machine]
            [quorate.impl.report :as report])
  (:import (java.util.concurrent CompletableFuture TimeUnit TimeoutException)
           (java.util.function BiConsumer)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const repeated-ns "The same failure is reported again after this time only; tries may be half a second apart."
  10000000000)
(def ^:private ^:const messages-max "Messages that are told from new ones." 32)

;; ---------------------------------------------------------------------------------------------------- position

(defn index-of "Index of the last entry in the state." ^long [{:keys [^longs position]}] (aget position 0))
(defn term-of "Term of the last entry in the state." ^long [{:keys [^longs position]}] (aget position 1))
(defn restored-to "Entries up to this index are in the state by a snapshot." ^long [{:keys [^longs position]}] (aget position 2))

(defn stepped!
  "The entry of `index` and `term` is in the state."
  [{:keys [^longs position]} ^long index ^long term]
  (aset position 0 index)
  (aset position 1 term))

(defn restored!
  "The state is that of the snapshot of `index` and `term`."
  [{:keys [^longs position] :as context} ^long index ^long term]
  (stepped! context index term)
  (aset position 2 index))

;; ----------------------------------------------------------------------------------------------------- failures

(defn failure
  "An ex-info of a snapshot that failed in the function `where`, a key of the configuration."
  ([where message] (failure where message nil))
  ([where message cause] (errors/error :raft/snapshot message {:where where} cause)))

(defn call
  "Calls the user's function under `k` with `args`. What it throws becomes an ex-info that names it."
  [context k & args]
  (try
    (apply (get context k) args)
    (catch Throwable t
      (throw (failure k (str k " threw: " (machine/said t)) t)))))

(defn- with-news
  "`reported`, `{message when}`, after `message` came up at `now`; the same map when it is no news."
  [reported message ^long now]
  (let [at (get reported message)]
    (if (and at (< (- now (long at)) repeated-ns))
      reported
      (assoc (if (< (count reported) messages-max) reported {}) message now))))

(defn- news? [{:keys [reported]} message]
  (let [[old new] (swap-vals! reported with-news message (System/nanoTime))]
    (not (identical? old new))))

(defn closed?
  "True once the node is being closed."
  [{:keys [runtime]}]
  (if-let [closed? (:closed? @runtime)]
    (closed?)
    false))

(defn report!
  "Reports `t`, of [[failure]] or any other, with `data`; the same one at most every ten seconds, and none of a closed node."
  [{:keys [runtime] :as context} ^Throwable t data]
  (let [where (:where (ex-data t) :snapshot)]
    (if (and (news? context [where (machine/said t)]) (not (closed? context)))
      (report/report! @runtime where (or (when (:where (ex-data t)) (ex-cause t)) t) data)
      (log/debug "Not reported again:" (machine/said t)))))

;; ----------------------------------------------------------------------------------------------------- deadline

(defn- too-late [{:keys [timeout-ms]} index]
  (failure :snapshot-write
           (str ":snapshot-write did not report the snapshot of index " index " as written within " timeout-ms
                " ms (:snapshot-timeout-ms). It is given up, and tried again later.")))

(defn- ended! [{:keys [pending] :as context} index ^Throwable t conclude! finish!]
  (let [failure (cond
                  (nil? t)                       (machine/failure-of conclude!)
                  (instance? TimeoutException t) (too-late context index)
                  :else                          t)]
    (when failure
      (report! context failure {:index index}))
    (reset! pending nil)
    (finish! failure)))

(defn begin!
  "Takes a snapshot of the state as of now. `(start! outcome)` is called here and sees to it that `outcome`, a
  CompletableFuture, is completed when the user's part is durable; then `(conclude!)` on another thread, and then `finish!`,
  with nil or with what went wrong, also when `start!` throws or the deadline passes."
  [{:keys [pending server timeout-ms] :as context} start! conclude! finish!]
  (if-let [index @pending]
    (finish! (failure :snapshot-write (str "The snapshot of index " index " is still being written.")))
    (let [index   (index-of context)
          outcome (CompletableFuture.)]
      (reset! pending index)
      (.orTimeout outcome (long timeout-ms) TimeUnit/MILLISECONDS)
      (.whenComplete outcome (reify BiConsumer
                               (accept [_ _ t]
                                 (machine/apart! server (fn [] (ended! context index t conclude! finish!))))))
      (when-let [t (machine/failure-of #(start! outcome))]
        (when-not (.completeExceptionally outcome t)
          (report! context t {:index index}))))))
