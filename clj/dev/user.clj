(ns user
  "A cluster of three nodes in this JVM, in a temporary directory, to try things on.

      (go)       start it; returns the nodes
      (nodes)    the three
      (leader)   the one that leads, nil when none does
      (reset)    halt, reload what changed, go
      (halt)     close the nodes and delete their files

  (go :kv) starts key-value stores instead, for quorate.kv."
  (:require [clojure.java.io :as io]
            [quorate.kv :as kv]
            [quorate.raft :as raft])
  (:import (java.io File)
           (java.net InetAddress ServerSocket)
           (java.nio.file Files)
           (java.nio.file.attribute FileAttribute)))

(set! *warn-on-reflection* true)

(defonce ^:private running (atom nil))

(defn- free-addresses
  "`n` loopback addresses whose ports are free now."
  [n]
  (let [sockets (vec (repeatedly n #(ServerSocket. 0 1 (InetAddress/getLoopbackAddress))))]
    (try
      (mapv (fn [^ServerSocket s] (str "127.0.0.1:" (.getLocalPort s))) sockets)
      (finally
        (run! (fn [^ServerSocket s] (.close s)) sockets)))))

(defn- temporary-directory ^File []
  (.toFile (Files/createTempDirectory "quorate-" (make-array FileAttribute 0))))

(defn- delete-tree [^File file]
  (run! delete-tree (.listFiles file))
  (.delete file))

(defn example
  "The reducer of the example: a map that :set, :delete and :get work on."
  [state {:keys [op key value]} _ctx]
  (case op
    :set    [(assoc state key value) (get state key)]
    :delete [(dissoc state key) (contains? state key)]
    :get    [state (get state key)]))

(defn- config [servers directory server]
  {:this-server   server
   :servers       servers
   :log-directory (io/file directory server)})

(defn nodes
  "The nodes of the running cluster, in order."
  []
  (:nodes @running))

(defn leader
  "The node that leads; nil when none is known to."
  []
  (first (filter raft/leader? (nodes))))

(defn- formed?
  "True when one leads and every node sees all as voters; until then the cluster cannot spare one."
  []
  (and (leader)
       (every? (fn [node]
                 (let [{:keys [members]} (raft/status node)]
                   (and (= (count (nodes)) (count members))
                        (every? :voter members))))
               (nodes))))

(defn- await-cluster
  "Waits up to ten seconds for the nodes to be one cluster."
  []
  (loop [tries 200]
    (when (and (not (formed?)) (pos? tries))
      (Thread/sleep 50)
      (recur (dec tries)))))

(defn halt
  "Closes the nodes and deletes their files. Returns :halted."
  []
  (let [[{:keys [nodes directory]} _] (reset-vals! running nil)]
    (doseq [node nodes]
      (if (instance? quorate.kv.Store node) (kv/close node) (raft/close node)))
    (some-> directory delete-tree)
    :halted))

(defn- start-all!
  "Starts a node a server and adds each to what runs, so that `halt` finds those that were started when one is not."
  [servers start]
  (let [directory (temporary-directory)]
    (reset! running {:directory directory, :nodes []})
    (try
      (doseq [server (sort (keys servers))]
        (let [node (start (config servers directory server))]
          (swap! running update :nodes conj node)))
      (catch Throwable t
        (halt)
        (throw t)))))

(defn go
  "Starts three nodes with the `example` reducer, or with :kv three stores, and waits until they are one cluster. Returns the nodes."
  ([] (go :reducer))
  ([kind]
   (when (nodes)
     (halt))
   (start-all! (zipmap ["server1" "server2" "server3"] (free-addresses 3))
               (case kind
                 :reducer #(raft/start (assoc % :reducer example, :initial-state {}))
                 :kv      kv/open))
   (await-cluster)
   (nodes)))

(def ^:private namespaces
  "In the order of their dependence."
  '[quorate.impl.errors quorate.impl.tokens quorate.impl.reader quorate.impl.writer quorate.impl.codec quorate.impl.wire
    quorate.impl.records quorate.impl.session quorate.impl.runner quorate.impl.pending quorate.impl.machine quorate.impl.loops
    quorate.impl.watches quorate.impl.config quorate.impl.node quorate.raft quorate.impl.keys quorate.impl.kv-op
    quorate.impl.kv-watches quorate.kv user])

(defn reset
  "Closes the nodes, reloads every namespace, starts the nodes again."
  []
  (halt)
  (run! #(require % :reload) namespaces)
  ((resolve 'user/go)))

(comment
  (go)
  (raft/new-entry (leader) {:op :set, :key :a, :value 1} println)
  (map raft/state (nodes))
  (raft/close (leader))
  (halt))
