(ns examples.kv-reducer
  "A replicated key-value store as a pure function.

  `lein run -m examples.kv-reducer` shows it on one node, then on three in this JVM, in temporary directories. `apply-entry`
  is the whole state machine: the node keeps the state, writes the log, takes the snapshots."
  (:require [clojure.java.io :as io]
            [quorate.raft :as raft])
  (:import (java.io File)
           (java.net InetAddress ServerSocket)
           (java.nio.file Files)
           (java.nio.file.attribute FileAttribute)))

(set! *warn-on-reflection* true)

;; ------------------------------------------------------------------------------------------------ the whole store

(defn apply-entry
  "The reducer: from the state, a map, and an entry to the new state and what the caller gets."
  [state {:keys [op key value expected]} {:keys [index]}]
  (case op
    :put    [(assoc state key {:value value, :index index}) {:index index}]
    :delete [(dissoc state key) {:deleted? (contains? state key)}]
    :cas    (if (= expected (:value (state key)))
              [(assoc state key {:value value, :index index}) {:swapped? true}]
              [state {:swapped? false, :current (:value (state key))}])
    [state {:error (str "There is no operation " op ".")}]))

(defn open
  "Starts a node that keeps such a store. `config` is `quorate.raft/start`'s."
  [config]
  (raft/start (assoc config :reducer apply-entry, :initial-state {})))

(defn write!
  "Sends `entry` and waits for what [[apply-entry]] returned for it on this node. Throws what the node passes instead."
  [node entry]
  (let [answer (promise)]
    (raft/new-entry node entry (fn [result] (deliver answer result)))
    (let [result @answer]
      (if (instance? Throwable result) (throw result) result))))

(defn read-key
  "The value of `key` on this node, with every write that was acknowledged before, wherever."
  [node key]
  (:value (get (raft/state node {:consistency :linearizable}) key)))

;; -------------------------------------------------------------------------------------------------------- the show

(defn one-node
  "Opens a store in `directory`, uses it, closes it, and opens it again. Returns what it read at last."
  [directory]
  (let [config {:this-server "solo", :servers ["solo"], :log-directory directory, :default-command-timeout 20000}
        node   (open config)]
    (println "put   " (write! node {:op :put, :key "tea", :value "green"}))
    (println "cas   " (write! node {:op :cas, :key "tea", :expected "green", :value "black"}))
    (println "cas   " (write! node {:op :cas, :key "tea", :expected "green", :value "white"}))
    (raft/close node)
    (let [again (open config)]
      (try
        (println "again " (raft/state again {:consistency :linearizable}))
        (read-key again "tea")
        (finally (raft/close again))))))

(defn- free-addresses [n]
  (let [sockets (vec (repeatedly n #(ServerSocket. 0 1 (InetAddress/getLoopbackAddress))))]
    (try
      (mapv (fn [^ServerSocket socket] (str "127.0.0.1:" (.getLocalPort socket))) sockets)
      (finally (run! (fn [^ServerSocket socket] (.close socket)) sockets)))))

(defn three-nodes
  "Opens a store on three nodes, writes through each, and returns what each reads: three equal maps."
  [directory]
  (let [servers (zipmap ["a" "b" "c"] (free-addresses 3))
        nodes   (mapv #(open {:this-server %, :servers servers, :log-directory (io/file directory %)
                              :default-command-timeout 20000})
                      (keys servers))]
    (try
      (doseq [node nodes]
        (println (:this-server node) "puts" (write! node {:op :put, :key (:this-server node), :value "was here"})))
      (mapv (fn [node]
              (let [state (raft/state node {:consistency :linearizable})]
                (println (:this-server node) "reads" state)
                state))
            nodes)
      (finally (run! raft/close nodes)))))

(defn- delete-tree! [^File file]
  (run! delete-tree! (.listFiles file))
  (.delete file))

(defn -main
  "Shows both. Exits with 1 when what was read is not what was written."
  [& _]
  (let [directory (.toFile (Files/createTempDirectory "quorate-example-" (make-array FileAttribute 0)))
        held?     (try
                    (and (= "black" (one-node (io/file directory "solo")))
                         (let [states (three-nodes directory)]
                           (and (apply = states) (= #{"a" "b" "c"} (set (keys (first states)))))))
                    (finally (delete-tree! directory)))]
    (println (if held? "All held." "FAILED: what was read is not what was written."))
    (flush)
    (when-not held?
      (System/exit 1))
    (shutdown-agents)))
