(ns bench.node
  "One of a benchmark's processes: a node of a cluster in a JVM, which leads and drives a load when it is asked to. Started by the
  benchmarks, not by people; it answers EDN questions on stdin until that ends.

      {:op :start :name :servers {name address} :dir :machine :bytes|:edn|:kv :config {...}}
      {:op :lead}  {:op :facts}  {:op :threads}
      {:op :load :kind :bytes|:edn|:kv :n :seconds :warm-up :bytes}
      {:op :fill :mib}  {:op :collect :seconds :between-ms}  {:op :write :kind :edn|:kv :seconds}  {:op :gaps}"
  (:require [bench.harness :as harness]
            [bench.heap :as heap]
            [bench.writers :as writers]
            [clojure.java.io :as io]
            [clojure.string :as str]
            [quorate.kv :as kv]
            [quorate.raft :as raft])
  (:import (java.io File)
           (java.nio.file Files)))

(set! *warn-on-reflection* true)

(defonce ^:private running (atom nil))

(defn- counting
  "The lightest machine: it counts."
  [n _entry _ctx]
  [(inc (long n)) true])

(defn- registers
  "Puts an entry's value under its key."
  [state {:keys [key value]} _ctx]
  [(assoc state key value) true])

(defn- machine [kind]
  (case kind
    :bytes {:reducer counting, :initial-state 0}
    :edn   {:reducer registers, :initial-state {}}
    :kv    {:machine :kv}))

(defn- start! [{:keys [name servers dir machine-kind config]}]
  (let [node (raft/start (merge {:this-server name, :servers servers, :log-directory (io/file dir name), :log-level :error}
                                (machine machine-kind)
                                config))]
    (reset! running {:node node, :name name, :store (when (= :kv machine-kind) (kv/attach node))})
    {:pid (.pid (java.lang.ProcessHandle/current))}))

(defn- lead! []
  (let [{:keys [node name]} @running
        end (+ (System/nanoTime) 30000000000)]
    (loop []
      (cond
        (raft/leader? node)       {:leader name}
        (> (System/nanoTime) end) (throw (ex-info (str name " does not become leader.") {}))
        ;; A transfer may meet an election; then it is tried again.
        :else (do (try @(raft/transfer-leader! node name {:timeout-ms 3000})
                       (catch clojure.lang.ExceptionInfo _ (Thread/sleep 20)))
                  (recur))))))

(defn- facts []
  (let [{:keys [leader term index members fsync]} (raft/status (:node @running))]
    {:leader leader, :term term, :index index, :voters (count (filter :voter members)), :syncs (:count fsync)}))

(defn- thread-time
  "The name of the thread whose directory below /proc is `task`, and how long it has run on a processor, in ns; nil when it has ended."
  [^File task]
  (let [read (fn [name] (Files/readString (.toPath (io/file task name))))]
    (try
      [(str/trim (read "comm")) (parse-long (re-find #"\d+" (read "schedstat")))]
      (catch java.io.IOException e
        (when (.exists task) (throw e))))))

(defn- threads
  "How long each thread of this process has run on a processor, in ns, by name; those of one name together."
  []
  (->> (.listFiles (io/file "/proc/self/task"))
       (keep thread-time)
       (reduce (fn [sums [thread ns]] (update sums thread (fnil + 0) ns)) {})))

(defn- load! [{:keys [kind n seconds warm-up bytes]}]
  (let [{:keys [node store]} @running]
    (writers/measured! (writers/submitter kind node store bytes) n warm-up seconds)))

(defonce ^:private kept (atom nil))

(defn- write-one! [kind i]
  (let [{:keys [node store]} @running
        k (str "key-" (rem (long i) 1000))]
    (case kind
      :kv  (kv/put!! store k i)
      :edn (let [answer (promise)]
             (raft/new-entry node {:op :set, :key k, :value i} (fn [x] (deliver answer x)))
             (when (instance? Throwable @answer)
               (throw @answer))))))

(defn- write!
  "Writes one after the other for `seconds`. When each was acknowledged, in milliseconds since 1970."
  [{:keys [kind seconds]}]
  (let [end (+ (System/currentTimeMillis) (* 1000 (long seconds)))]
    (loop [i 0, at (transient [])]
      (if (< (System/currentTimeMillis) end)
        (do (write-one! kind i)
            (recur (inc i) (conj! at (System/currentTimeMillis))))
        (persistent! at)))))

(defn- gaps
  "From one append of the leader to the next: `{:max-ms m :counts [[up-to-ms n] ...]}`, cumulative, the last for any."
  []
  (let [text  (raft/metrics (:node @running))
        found (re-seq #"quorate_append_gap_seconds_bucket\{le=\"([^\"]+)\"\} (\d+)" text)]
    {:max-ms (* 1000.0 (parse-double (second (re-find #"(?m)^quorate_append_gap_max_seconds (\S+)" text))))
     :counts (mapv (fn [[_ le n]] [(when-not (str/starts-with? le "+") (* 1000.0 (parse-double le))) (parse-long n)]) found)}))

(defn- answer [{:keys [op] :as question}]
  (case op
    :start (start! question)
    :lead  (lead!)
    :facts (facts)
    :threads (threads)
    :load  (load! question)
    :fill  (do (reset! kept (heap/live (:mib question))) true)
    :collect (heap/collect! (:seconds question) (:between-ms question))
    :write (write! question)
    :gaps  (gaps)))

(defn -main
  "Serves until stdin ends."
  []
  (harness/answering! answer)
  (some-> @running :node raft/close)
  (shutdown-agents)
  (System/exit 0))
