(ns drop-in
  "How fast a consumer of fluree/raft goes on Quorate: three nodes in one JVM, a state machine with its own snapshot functions at
  fluree's default threshold, durable, the load in the leader; by the native transport and by a user's own.

      make bench-drop-in            5 seconds each
      lein with-profile +bench run -m drop-in 20

  A closed loop: so many entries are in flight, and each answer sends the next. Not a test: nothing is asserted about speed."
  (:require [clojure.java.io :as io]
            [quorate.raft :as raft])
  (:import (java.io File)
           (java.net InetAddress ServerSocket)
           (java.nio.file Files)
           (java.nio.file.attribute FileAttribute)
           (java.util.concurrent Executors ExecutorService Semaphore)
           (java.util.concurrent.atomic AtomicLong)))

(set! *warn-on-reflection* true)

(def ^:private servers ["server1" "server2" "server3"])
(def ^:private warm-up-seconds 2)

(defn- free-address [_]
  (with-open [socket (ServerSocket. 0 1 (InetAddress/getLoopbackAddress))]
    (str "127.0.0.1:" (.getLocalPort socket))))

(defn- temporary ^File []
  (.toFile (Files/createTempDirectory "quorate-drop-in-" (make-array FileAttribute 0))))

(defn- delete-tree [^File file]
  (run! delete-tree (.listFiles file))
  (.delete file))

;; A user's side, in the convention of fluree/raft's source.

(defn- snapshot-file ^File [directory index]
  (io/file directory (str index ".snapshot")))

(defn- user-functions [^File directory]
  (.mkdirs directory)
  (let [state (atom {})]
    {:state-machine    (fn [{:keys [op k v]} _raft-state]
                         (case op
                           :set (do (swap! state assoc k v) true)))
     :snapshot-write   (fn [index done]
                         (let [value @state]
                           (future (spit (snapshot-file directory index) (pr-str value))
                                   (done))))
     :snapshot-reify   (fn [index] (reset! state (read-string (slurp (snapshot-file directory index)))))
     :snapshot-xfer    (fn [index _part] {:parts 1, :data (slurp (snapshot-file directory index))})
     :snapshot-install (fn [{:keys [snapshot-index snapshot-data]}]
                         (spit (snapshot-file directory snapshot-index) snapshot-data))}))

(defn- carrier
  "A `:send-rpc-fn` that hands each message to the other node by a thread of `pool`."
  [nodes ^ExecutorService pool]
  (fn [_raft-state server op data cb]
    (.execute pool (fn []
                     (when-let [node (get @nodes server)]
                       (raft/invoke-rpc node op data cb))))))

(defn- start! [directory nodes more server]
  (let [own (io/file directory server)]
    (swap! nodes assoc server
           (raft/start (merge {:this-server server, :log-directory (io/file own "raft"), :log-level :error}
                              (user-functions (io/file own "snapshots"))
                              more)))))

(defn- leader [nodes]
  (loop [tries 600]
    (or (first (filter raft/leader? (vals @nodes)))
        (do (when (zero? tries) (throw (ex-info "No leader within a minute." {})))
            (Thread/sleep 100)
            (recur (dec tries))))))

(defn- run-for!
  "Entries answered within `seconds`, with `in-flight` of them under way."
  [node in-flight seconds]
  (let [permits  (Semaphore. in-flight)
        answered (AtomicLong.)
        failed   (AtomicLong.)
        end      (+ (System/nanoTime) (* 1000000000 (long seconds)))
        answer   (fn [result]
                   (.incrementAndGet (if (true? result) answered failed))
                   (.release permits))]
    (loop [i 0]
      (.acquire permits)
      (when (< (System/nanoTime) end)
        (raft/new-entry node {:op :set, :k (rem i 1000), :v {:name "a value of some size", :n i}} answer 20000)
        (recur (inc i))))
    (let [n (.get answered)]
      (.release permits)
      (.acquire permits in-flight)
      (when (pos? (.get failed))
        (println "   " (.get failed) "entries failed"))
      n)))

(defn- measured! [transport node seconds]
  (doseq [in-flight [1 64]]
    (run-for! node in-flight warm-up-seconds)
    (println (format "%-8s %3d in flight  %,9d ops/s" transport in-flight (quot (long (run-for! node in-flight seconds)) (long seconds))))))

(defn- bench! [transport more seconds]
  (let [directory (temporary)
        nodes     (atom {})
        pool      (Executors/newFixedThreadPool 3)]
    (try
      (run! #(start! directory nodes (more nodes pool) %) servers)
      (measured! transport (leader nodes) seconds)
      (finally
        (run! raft/close (vals @nodes))
        (.shutdownNow pool)
        (delete-tree directory)))))

(defn -main
  "Prints ops/s for each transport; `seconds` (5) for each figure."
  [& [seconds]]
  (let [seconds   (parse-long (or seconds "5"))
        addresses (zipmap servers (map free-address servers))]
    (bench! "native" (fn [_ _] {:servers addresses}) seconds)
    (bench! "user" (fn [nodes pool] {:servers servers, :send-rpc-fn (carrier nodes pool)}) seconds)
    (shutdown-agents)))
