(ns quorate.load.nodes
  "Which nodes take load. One that failed is left out, asked for its health in the background, and used again when it is well."
  (:require [clojure.string :as str]
            [quorate.load.http :as http])
  (:import (java.io IOException)
           (java.util.concurrent Executors ScheduledExecutorService ThreadFactory TimeUnit)
           (java.util.concurrent.atomic AtomicBoolean)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private look-ms "How often nodes that are left out are asked." 200)
(def ^:private health-ms "How long a node may take to say that it is well." 1000)

(defn- usable? [{:keys [^AtomicBoolean usable]}]
  (.get usable))

(defn- well?
  "Whether the node answers that a quorum stands behind it."
  [node]
  (try
    (with-open [connection (http/connect node health-ms)]
      (= 200 (http/status-of connection "/_health" health-ms)))
    (catch IOException _ false)))

(defn- look [nodes]
  (doseq [{:keys [^AtomicBoolean usable] :as node} nodes
          :when (and (not (.get usable)) (well? node))]
    (.set usable true)))

(defn- background ^ScheduledExecutorService []
  (Executors/newSingleThreadScheduledExecutor
   (reify ThreadFactory
     (newThread [_ task]
       (doto (Thread. task "quorate-load-health")
         (.setDaemon true))))))

(defn start
  "The nodes, all of them usable, and the thread that looks after those that are not. Returns `{:nodes :stop}`."
  [nodes]
  (let [nodes (mapv #(assoc % :usable (AtomicBoolean. true)) nodes)
        pool  (background)]
    (.scheduleWithFixedDelay pool ^Runnable #(look nodes) (long look-ms) (long look-ms) TimeUnit/MILLISECONDS)
    {:nodes nodes, :stop #(.shutdownNow pool)}))

(defn leave-out
  "Uses the node no more until it is well."
  [{:keys [^AtomicBoolean usable]}]
  (.set usable false))

(defn choose
  "The place of a node for the `attempt`th attempt, from 0, of the worker of that number: its own, or the next that is usable. When none is, they are
  tried in turn all the same, so that there is a reason to tell."
  ^long [nodes ^long worker ^long attempt]
  (let [n    (count nodes)
        own  (rem worker n)
        turn (rem (+ own attempt) n)]
    (loop [i 0]
      (let [at (rem (+ own i) n)]
        (cond (= i n)                 turn
              (usable? (nth nodes at)) at
              :else                   (recur (inc i)))))))

(defn any-usable?
  "Whether one of the nodes takes load."
  [nodes]
  (boolean (some usable? nodes)))

(defn- refusal
  "Why no connection to the node can be opened; nil when one can."
  [{:keys [name] :as node}]
  (try (http/close (http/connect node health-ms))
       nil
       (catch IOException thrown
         (str name ": " (or (ex-message thrown) (str thrown))))))

(defn unreachable
  "Tries, for `ms`, to open a connection to one of the nodes. Nil as soon as one can be reached, otherwise why not, for each."
  [nodes ms]
  (let [deadline (+ (System/nanoTime) (* 1000000 (long ms)))]
    (loop []
      (let [refusals (mapv refusal nodes)]
        (cond (some nil? refusals)            nil
              (< deadline (System/nanoTime)) (str/join "; " refusals)
              :else                           (do (Thread/sleep (long look-ms))
                                                  (recur)))))))
