(ns bench.harness
  "What the benchmarks share: rows of figures as JSON lines, latencies, command lines, and processes that are asked on their stdin
  and answer on their stdout, a line of EDN each way, and are gone when the benchmark is.

  Rows go to `target/bench/PART.jsonl`; `quorate-bench report` makes tables of them."
  (:require [clojure.edn :as edn]
            [clojure.java.io :as io]
            [clojure.string :as str]
            [quorate.ring.json :as json])
  (:import (java.io BufferedReader File Writer)
           (java.lang ProcessBuilder$Redirect)
           (java.net InetAddress ServerSocket)
           (java.nio.file Files Path)
           (java.nio.file.attribute FileAttribute)
           (java.util.concurrent ArrayBlockingQueue TimeUnit)
           (org.HdrHistogram Histogram)))

(set! *warn-on-reflection* true)

;; -------------------------------------------------------------------------------------------------------- rows

(def ^:dynamic *out-file*
  "Where rows go instead of target/bench; nil for there."
  nil)

(defn rows-file
  "Where the rows of `part` go."
  ^File [part]
  (or *out-file* (io/file "target" "bench" (str part ".jsonl"))))

(defn begin!
  "Empties the rows of `part`."
  [part]
  (io/make-parents (rows-file part))
  (spit (rows-file part) ""))

(defn row!
  "Appends `row`, a map, to the rows of `part`."
  [part row]
  (spit (rows-file part) (str (json/write (assoc row :part part)) "\n") :append true))

(defn rounded
  "`x` with one decimal."
  [x]
  (/ (Math/round (* 10.0 (double x))) 10.0))

(defn histogram
  "Latencies in nanoseconds, three digits of each, up to a minute."
  ^Histogram []
  (Histogram. 60000000000 3))

(defn latencies
  "The percentiles of `h`, nanoseconds, as a row has them, microseconds."
  [^Histogram h]
  (let [at #(rounded (/ (.getValueAtPercentile h %) 1000.0))]
    {:p50_us (at 50.0), :p99_us (at 99.0), :p999_us (at 99.9), :max_us (rounded (/ (.getMaxValue h) 1000.0))}))

(defn load-average
  "Of the last minute; nil where the system does not tell."
  []
  (let [load (.getSystemLoadAverage (java.lang.management.ManagementFactory/getOperatingSystemMXBean))]
    (when-not (neg? load) load)))

;; ------------------------------------------------------------------------------------------------ command line

(defn- usage! [known said]
  (binding [*out* *err*]
    (println said)
    (println "Options:" (str/join " " (map (fn [[k v]] (if (true? v) (str "[" k "]") (str "[" k " VALUE]"))) (sort known)))))
  (System/exit 2))

(defn options
  "`args` as a map by option, e.g. `{\"--quick\" true}`. `known` says which there are: true for one without a value, else a function
  that reads the value. Says what is wrong and ends the process with status 2."
  [known args]
  (loop [[option & more] args, found {}]
    (let [read-it (get known option)]
      (cond
        (nil? option)   found
        (nil? read-it)  (usage! known (str option " is not understood."))
        (true? read-it) (recur more (assoc found option true))
        (empty? more)   (usage! known (str option " needs a value."))
        :else           (recur (rest more)
                               (assoc found option (try (read-it (first more))
                                                        (catch Exception _
                                                          (usage! known (str option " cannot be " (first more) "."))))))))))

(defn number
  "A whole number from 1 on."
  [text]
  (let [n (Long/parseLong text)]
    (when-not (pos? n) (throw (IllegalArgumentException. ^String text)))
    n))

(defn numbers
  "Whole numbers with commas between them."
  [text]
  (mapv number (str/split text #",")))

;; ------------------------------------------------------------------------------------------------------- places

(defn free-addresses
  "`n` addresses on loopback, of ports that are free."
  [n]
  (let [sockets (vec (repeatedly n #(ServerSocket. 0 1 (InetAddress/getLoopbackAddress))))]
    (try
      (mapv #(str "127.0.0.1:" (.getLocalPort ^ServerSocket %)) sockets)
      (finally
        (run! #(.close ^ServerSocket %) sockets)))))

(defn delete-tree!
  "Removes `file` and what is in it."
  [^File file]
  (run! delete-tree! (.listFiles file))
  (.delete file))

(defn temporary-directory
  "A new directory below target/, on the disk that the build is on."
  ^File []
  (let [parent (io/file "target" "bench" "tmp")]
    (.mkdirs parent)
    (.toFile (Files/createTempDirectory (.toPath parent) "run-" (make-array FileAttribute 0)))))

;; --------------------------------------------------------------------------------------------------- processes

(def ^:private ^:const lines-max "Lines of a process that wait to be read; beyond them it waits." 1024)

(defrecord Member [name ^Process process ^Writer in ^ArrayBlockingQueue lines])

(defn- read-lines! [^BufferedReader out ^ArrayBlockingQueue lines]
  (doto (Thread. (fn []
                   (loop []
                     (if-let [line (try (.readLine out) (catch java.io.IOException _ nil))]
                       (do (.put lines line) (recur))
                       (.put lines ::end))))
                 "bench-lines")
    (.setDaemon true)
    (.start)))

(defn spawn!
  "Starts `command`, words, as the process `name`; what it writes to stderr is seen."
  [name command]
  (let [process (-> (ProcessBuilder. ^java.util.List command)
                    (.redirectError ProcessBuilder$Redirect/INHERIT)
                    (.start))
        lines   (ArrayBlockingQueue. lines-max)]
    (read-lines! (io/reader (.getInputStream process)) lines)
    (->Member name process (io/writer (.getOutputStream process)) lines)))

(defn java-command
  "A JVM like this one, with `options` more, that runs the -main of `namespace`."
  [options namespace]
  (let [said (into {} (System/getProperties))
        kept (for [k ["quorate.library" "java.util.logging.config.file" "clojure.tools.logging.factory"], :when (get said k)]
               (str "-D" k "=" (get said k)))]
    (vec (concat [(str (io/file (get said "java.home") "bin" "java"))]
                 kept
                 (when (<= 22 (.feature (Runtime/version))) ["--enable-native-access=ALL-UNNAMED"])
                 options
                 ["-cp" (get said "java.class.path") "clojure.main" "-m" namespace]))))

(defn line!
  "The next line of `member`. Throws after `seconds` without one, or at its end."
  ^String [{:keys [name ^ArrayBlockingQueue lines]} seconds]
  (let [line (.poll lines (long seconds) TimeUnit/SECONDS)]
    (cond
      (nil? line)             (throw (ex-info (str "The process " name " gave no answer within " seconds " s.") {}))
      (identical? ::end line) (throw (ex-info (str "The process " name " ended.") {}))
      :else                   line)))

(defn send!
  "Sends `line` to `member`."
  [{:keys [^Writer in]} line]
  (.write in (str line "\n"))
  (.flush in))

(defn ask!
  "Sends the EDN `question` to `member`; its answer. Throws what it answers as `{:failed message}`, or as [[line!]]."
  [member question seconds]
  (send! member (pr-str question))
  (let [answer (edn/read-string (line! member seconds))]
    (when (and (map? answer) (:failed answer))
      (throw (ex-info (str "The process " (:name member) " failed: " (:failed answer)) {})))
    answer))

(defn end!
  "Ends the stdin of `member`, at which it ends; kills it when it has not within 20 s. True when it ended well."
  [{:keys [^Process process ^Writer in]}]
  (try (.close in)
       (catch java.io.IOException _ nil))   ; it is gone already; its status tells how
  (if (.waitFor process 20 TimeUnit/SECONDS)
    (zero? (.exitValue process))
    (do (.destroyForcibly process)
        (.waitFor process 5 TimeUnit/SECONDS)
        false)))

(defn answering!
  "Answers the EDN questions on stdin with what `(answer question)` returns, a line each, until stdin ends. What it throws is the
  answer `{:failed message}`."
  [answer]
  (let [in  (BufferedReader. *in*)
        out *out*]
    (loop []
      (when-let [line (.readLine in)]
        (let [said (try (answer (edn/read-string line))
                        (catch Throwable t
                          (.printStackTrace t)
                          {:failed (str (.getName (class t)) ": " (ex-message t))}))]
          (binding [*out* out]
            (prn said)
            (flush)))
        (recur)))))

(defmacro with-members
  "Runs `body` with `members`, an atom of a vector of members, and ends all of them."
  [[members] & body]
  `(let [~members (atom [])]
     (try
       ~@body
       (finally
         (run! end! (deref ~members))))))
