(ns quorate.clusters
  "Nodes for tests: on loopback, in a temporary directory, closed and deleted in the end."
  (:require [clojure.java.io :as io]
            [clojure.test :refer [is]]
            [quorate.raft :as raft])
  (:import (java.io File)
           (java.net InetAddress ServerSocket)
           (java.nio.file Files)
           (java.nio.file.attribute FileAttribute)))

(set! *warn-on-reflection* true)

(defn free-addresses
  "`n` loopback addresses whose ports are free now."
  [n]
  (let [sockets (vec (repeatedly n #(ServerSocket. 0 1 (InetAddress/getLoopbackAddress))))]
    (try
      (mapv (fn [^ServerSocket s] (str "127.0.0.1:" (.getLocalPort s))) sockets)
      (finally
        (run! (fn [^ServerSocket s] (.close s)) sockets)))))

(defn delete-tree [^File file]
  (run! delete-tree (.listFiles file))
  (.delete file))

(defn with-directory
  "Calls `f` with a fresh directory, deleted afterwards."
  [f]
  (let [directory (.toFile (Files/createTempDirectory "quorate-test-" (make-array FileAttribute 0)))]
    (try (f directory)
         (finally (delete-tree directory)))))

(defn eventually
  "What `f` returns as soon as that is true, or after `seconds` whatever it returned last. What it throws counts as false
  until then."
  ([f] (eventually 20 f))
  ([seconds f]
   (let [end (+ (System/nanoTime) (* 1000000000 (long seconds)))]
     (loop []
       (let [found (try (f) (catch Exception e e))]
         (if (or (and found (not (instance? Exception found))) (> (System/nanoTime) end))
           found
           (do (Thread/sleep 20)
               (recur))))))))

(defn formed?
  "True when each of `nodes` sees all of them as voters and nobody else, and a leader. Until then a node may still be
  joining, and the cluster cannot spare another."
  [nodes]
  (every? (fn [node]
            (let [{:keys [members leader role]} (raft/status node)]
              (and leader
                   (contains? #{:leader :follower} role)
                   (= (count nodes) (count members))
                   (every? :voter members))))
          nodes))

(defn with-nodes
  "Starts a node a name in `names` by `(start config)`, waits until they are one cluster, and calls `(f nodes)`, a map by
  name. Closes every node with `close`, also those that were closed before."
  [names start close f]
  (with-directory
   (fn [directory]
     (let [servers (zipmap names (free-addresses (count names)))
           nodes   (atom {})]
       (try
         (doseq [server names]
           (swap! nodes assoc server
                  (start {:this-server server, :servers servers, :log-directory (io/file directory server), :log-level :error})))
         (is (eventually 30 #(formed? (vals @nodes))) (pr-str (map raft/status (vals @nodes))))
         (f @nodes)
         (finally
           (run! close (vals @nodes))))))))
