(ns examples.kv-fluree
  "A replicated key-value store in fluree/raft's way: a state machine that keeps its own state in an atom, and five
  functions that write, load, list, send and receive its snapshots.

  `lein run -m examples.kv-fluree` shows it on three nodes in this JVM, in temporary directories: it writes past the
  snapshot threshold, starts one node again, and adds a fourth with an empty disk. Beside it, `examples/kv-reducer` is the
  same store as a pure function, which needs none of the five."
  (:require [clojure.edn :as edn]
            [clojure.java.io :as io]
            [quorate.raft :as raft])
  (:import (java.io File FileOutputStream RandomAccessFile)
           (java.net InetAddress ServerSocket)
           (java.nio.charset StandardCharsets)
           (java.nio.file Files)
           (java.nio.file.attribute FileAttribute)))

(set! *warn-on-reflection* true)

(def ^:private part-bytes "Bytes of a snapshot that travel in one part." 65536)

;; ------------------------------------------------------------------------------------------------ the state machine

(defn state-machine
  "A state machine over `state`, an atom that holds a map. Entries: `[:write k v]` `[:read k]` `[:delete k]`
  `[:cas k expected v]`."
  [state]
  (fn [[op k a b] _raft-state]
    (case op
      :write  (do (swap! state assoc k a) true)
      :read   (get @state k)
      :delete (let [there? (contains? @state k)]
                (swap! state dissoc k)
                there?)
      :cas    (let [equal? (= a (get @state k))]
                (when equal? (swap! state assoc k b))
                equal?)
      {:error (str "There is no operation " op ".")})))

;; ---------------------------------------------------------------------------------------------------- its snapshots

(defn- snapshot-file ^File [directory index]
  (io/file directory (str index ".snapshot")))

(defn- write-durably!
  "Writes beside, fsyncs, renames: a crash leaves the old file or the new one."
  [^File file ^bytes data]
  (let [beside (io/file (str file ".new"))]
    (io/make-parents file)
    (with-open [out (FileOutputStream. beside)]
      (.write out data)
      (.force (.getChannel out) true))
    (when-not (.renameTo beside file)
      (throw (java.io.IOException. (str "Cannot rename " beside "."))))))

(defn snapshot-write
  "`(index done)`: takes the state as it is now, writes it on a thread of its own, then calls `done`."
  [directory state]
  (fn [index done]
    (let [value @state]
      (future
        (write-durably! (snapshot-file directory index) (.getBytes (pr-str value) StandardCharsets/UTF_8))
        (done)))))

(defn snapshot-reify
  "`(index)`: replaces the state by the snapshot of `index`."
  [directory state]
  (fn [index]
    (reset! state (edn/read-string (slurp (snapshot-file directory index))))))

(defn snapshot-xfer
  "`(index part)`: the part of the snapshot, from 1, and how many there are."
  [directory]
  (fn [index part]
    (with-open [file (RandomAccessFile. (snapshot-file directory index) "r")]
      (let [size  (.length file)
            parts (max 1 (long (Math/ceil (/ (double size) (long part-bytes)))))
            from  (* (dec (long part)) (long part-bytes))
            data  (byte-array (max 0 (min (long part-bytes) (- size from))))]
        (.seek file from)
        (.readFully file data)
        {:parts parts, :data data}))))

(defn snapshot-install
  "`(map)`: receives one part; the first begins the file anew."
  [directory]
  (fn [{:keys [snapshot-index snapshot-part snapshot-data]}]
    (let [file (snapshot-file directory snapshot-index)]
      (io/make-parents file)
      (with-open [out (FileOutputStream. file (boolean (< 1 (long snapshot-part))))]
        (.write out ^bytes snapshot-data)
        (.force (.getChannel out) true)))))

(defn snapshot-list-indexes
  "`()`: the indexes of the snapshots on this disk, ascending."
  [directory]
  (fn []
    (->> (.listFiles (io/file directory))
         (keep (fn [^File file] (second (re-matches #"(\d+)\.snapshot" (.getName file)))))
         (map parse-long)
         sort
         vec)))

(defn open
  "Starts a node that keeps such a store under `directory`. `config` is [[raft/start]]'s, without the state machine. Returns
  `{:node :state}`."
  [directory config]
  (let [state     (atom {})
        snapshots (io/file directory "snapshots")]
    {:state state
     :node  (raft/start (merge {:log-directory         (io/file directory "log")
                                :state-machine         (state-machine state)
                                :snapshot-write        (snapshot-write snapshots state)
                                :snapshot-reify        (snapshot-reify snapshots state)
                                :snapshot-xfer         (snapshot-xfer snapshots)
                                :snapshot-install      (snapshot-install snapshots)
                                :snapshot-list-indexes (snapshot-list-indexes snapshots)}
                               config))}))

(defn call!
  "Sends `entry` and waits for what the state machine of `node` returned. Throws what the node passes instead."
  [node entry]
  (let [answer (promise)]
    (raft/new-entry node entry (fn [result] (deliver answer result)) 20000)
    (let [result @answer]
      (if (instance? Throwable result) (throw result) result))))

;; --------------------------------------------------------------------------------------------------------- the show

(defn- free-addresses [n]
  (let [sockets (vec (repeatedly n #(ServerSocket. 0 1 (InetAddress/getLoopbackAddress))))]
    (try
      (mapv (fn [^ServerSocket socket] (str "127.0.0.1:" (.getLocalPort socket))) sockets)
      (finally (run! (fn [^ServerSocket socket] (.close socket)) sockets)))))

(defn- settled
  "The states of `stores` as soon as they are equal, or after ten seconds whatever they are: a fourth node may still be
  loading its snapshot."
  [stores]
  (loop [tries 200]
    (let [states (mapv (comp deref :state) stores)]
      (if (or (apply = states) (zero? tries))
        states
        (do (Thread/sleep 50)
            (recur (dec tries)))))))

(defn story
  "Three nodes under `directory`; writes past the snapshot threshold of 100; the third is started again; a fourth joins with
  an empty disk. Returns the state of each of the four: equal maps."
  [directory]
  (let [[d & three] (free-addresses 4)
        servers (zipmap ["a" "b" "c"] three)
        start   (fn [server servers] (open (io/file directory server) {:this-server server, :servers servers}))
        stores  (atom (into {} (map (fn [server] [server (start server servers)])) (keys servers)))
        node    (fn [server] (:node (@stores server)))]
    (try
      (dotimes [i 300]
        (call! (node (nth ["a" "b" "c"] (mod i 3))) [:write (mod i 50) i]))
      (println "a reads 49:" (call! (node "a") [:read 49]))
      (raft/close (node "c"))
      (swap! stores assoc "c" (start "c" servers))
      (println "c is back with" (count @(:state (@stores "c"))) "keys from snapshot" (:snapshot-index (raft/status (node "c"))))
      (swap! stores assoc "d" (start "d" (assoc servers "d" d)))
      @(raft/add-server! (node "a") "d" d {:timeout-ms 20000})
      (println "d writes:" (call! (node "d") [:cas 49 299 :last]))
      (settled (vals @stores))
      (finally (run! (comp raft/close :node) (vals @stores))))))

(defn- delete-tree! [^File file]
  (run! delete-tree! (.listFiles file))
  (.delete file))

(defn -main
  "Shows it. Exits with 1 when the four nodes do not agree."
  [& _]
  (let [directory (.toFile (Files/createTempDirectory "quorate-example-" (make-array FileAttribute 0)))
        states    (try (story directory)
                       (finally (delete-tree! directory)))
        held?     (and (apply = states) (= :last (get (first states) 49)))]
    (println (if held? "All held." "FAILED: the nodes do not agree."))
    (flush)
    (when-not held?
      (System/exit 1))
    (shutdown-agents)))
