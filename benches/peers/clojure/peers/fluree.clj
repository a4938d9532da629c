(ns peers.fluree
  "Three fluree/raft nodes in one JVM, messages handed over by function call, for `peers.FlureePeer`. fluree/raft brings no
  transport of its own: this is the fastest that it can have, and what it has here is a head start, as is that it never syncs."
  (:require [clojure.core.async :as async]
            [clojure.java.io :as io]
            [fluree.raft :as raft])
  (:import (java.util.concurrent.atomic AtomicLong)))

(set! *warn-on-reflection* true)

(def ^:private servers ["a" "b" "c"])
(def ^:private command-timeout-ms 30000)
(def ^:private queue "Its channels fail with more than 1,024 waiting puts: these hold more." 16384)
(def ^:private snapshot-entries
  "Entries between snapshots, each with a new log file: its default. It reads that file from the beginning for every message, so with
  10,000 it answers 6 operations a second, with 1,000 it answers 58, with 100 more than 300."
  100)

(defn- config [nodes dir server ^AtomicLong applied]
  (let [own (io/file dir server)
        snapshots (atom [])]
    {:this-server           server
     :servers               servers
     :log-directory         (str (io/file own "log"))
     :timeout-ms            500
     :heartbeat-ms          100
     :entries-max           1024
     :snapshot-threshold    snapshot-entries
     :event-chan            (async/chan queue)
     :command-chan          (async/chan queue)
     :send-rpc-fn           (fn [_state to op data callback]
                              (when-let [node (get @nodes to)]
                                (raft/invoke-rpc node op data callback)))
     :state-machine         (fn [_entry _state] (.incrementAndGet applied))
     :snapshot-write        (fn [index done] (swap! snapshots conj index) (done))
     :snapshot-reify        (fn [_index])
     :snapshot-install      (fn [_snapshot])
     :snapshot-xfer         (fn [_index _part] {:parts 1, :data (byte-array 0)})
     :snapshot-list-indexes (fn [] @snapshots)}))

(defn start
  "Three nodes with their data in `dir`."
  [dir]
  (let [nodes   (atom {})
        applied (zipmap servers (repeatedly #(AtomicLong.)))]
    (doseq [server servers]
      (swap! nodes assoc server (raft/start (config nodes dir server (applied server)))))
    {:nodes nodes, :applied applied}))

(defn- state [node]
  (let [answer (promise)]
    (raft/get-raft-state node #(deliver answer %))
    (deref answer 5000 nil)))

(defn leader
  "`[name term]` of the leader on which all three agree; nil when there is none."
  [{:keys [nodes]}]
  (let [states  (map state (vals @nodes))
        leaders (distinct (map (juxt :leader :term) states))]
    (when (and (= 1 (count leaders)) (ffirst leaders))
      (first leaders))))

(defn applied
  "How many entries the node that has applied the fewest has applied."
  [{:keys [applied]}]
  (apply min (map #(.get ^AtomicLong %) (vals applied))))

(defn submitter
  "A function that submits an entry to the leader `name` and has its callback called once."
  [{:keys [nodes]} name]
  (let [node (get @nodes name)]
    (fn [entry callback]
      (raft/new-entry node entry callback command-timeout-ms))))

(defn command
  "A map of about `bytes` bytes as EDN."
  [bytes]
  (let [bare {:op :set, :key "key-000001", :value ""}]
    (assoc bare :value (apply str (repeat (max 0 (- (long bytes) (count (pr-str bare)))) "x")))))

(defn close
  "Ends the three."
  [{:keys [nodes]}]
  (run! raft/close (vals @nodes)))
