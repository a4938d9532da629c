(ns bench.http
  "Three ring servers as processes, durable, on loopback; keep-alive load on the leader from this process by the client of `quorate.load`,
  and by wrk where it is installed. A closed loop: so many connections, each of which sends when its last request was answered.

      lein with-profile +bench run -m bench.http [--quick] [--seconds 4] [--rounds 3] [--n 1,16,64] [--bytes 128]

  Rows go to target/bench/http.jsonl. `more` tells the processor time of the load's process for each request (client_us; not for wrk) and of the
  three servers together (servers_us), both from the kernel."
  (:require [clojure.java.io :as io]
            [clojure.java.shell :as shell]
            [clojure.string :as str]
            [clojure.tools.cli :as cli]
            [quorate.load :as load]
            [quorate.load.options :as options]
            [quorate.ring.json :as json])
  (:import (java.io File)
           (java.lang ProcessBuilder$Redirect ProcessHandle)
           (java.net HttpURLConnection InetAddress InetSocketAddress ServerSocket URL)
           (java.nio.file Files)
           (java.nio.file.attribute FileAttribute)
           (java.time Duration)
           (java.util List Map)
           (java.util.concurrent TimeUnit)))

(set! *warn-on-reflection* true)

(def ^:private ready-seconds "Three JVMs start on few cores." 60)
(def ^:private warm-up-seconds "Compilers need so long before a figure means something." 5)
(def ^:private keys-count 10000)
(def ^:private variants ["PUT" "GET linearizable" "GET local"])

;; ----------------------------------------------------------------------------------------------------------- servers

(defn- free? [port]
  (with-open [socket (ServerSocket.)]
    (try (.bind socket (InetSocketAddress. (InetAddress/getLoopbackAddress) (int port)))
         true
         (catch java.net.BindException _ false))))

(defn- free-ports
  "Three ports that are free, as are those 10,000 higher, for raft."
  []
  (vec (take 3 (filter #(and (free? %) (free? (+ 10000 (long %)))) (range (+ 20000 (long (rand-int 1000))) 22700)))))

(defn- server-command []
  (let [property #(System/getProperty %)]
    (into [(str (property "java.home") "/bin/java") (str "-Dquorate.library=" (property "quorate.library")) "-Xmx1g"]
          (concat (when (<= 22 (.feature (Runtime/version))) ["--enable-native-access=ALL-UNNAMED"])
                  ["-cp" (property "java.class.path") "clojure.main" "-m" "quorate.ring.main" "server"]))))

(defn- start! ^Process [^File folder ports port]
  (let [builder (ProcessBuilder. ^List (server-command))
        others  (for [other ports :when (not= other port)] (str "http://localhost:" other))
        environment {"PORT" (str port), "CLUSTER" (str/join "," others), "DATA_DIR" (str (io/file folder (str port)))}]
    (doto ^Map (.environment builder)
      (.remove "JOIN")
      (.remove "RAFT_PORT")
      (.putAll environment))
    (-> builder
        (.redirectErrorStream true)
        (.redirectOutput (ProcessBuilder$Redirect/to (io/file folder (str port ".log"))))
        (.start))))

(defn- page
  "The status and the text of a page."
  [port path]
  (let [^HttpURLConnection connection (.openConnection (URL. (str "http://localhost:" port path)))]
    (doto connection
      (.setConnectTimeout 1000)
      (.setReadTimeout 5000))
    (try
      (let [status (.getResponseCode connection)]
        [status (slurp (if (< status 400) (.getInputStream connection) (.getErrorStream connection)))])
      (catch java.io.IOException _ [nil ""])
      (finally (.disconnect connection)))))

(defn- await-true [what f]
  (let [deadline (+ (System/nanoTime) (* 1000000000 (long ready-seconds)))]
    (loop []
      (or (f)
          (do (when (< deadline (System/nanoTime))
                (throw (ex-info (str "Within " ready-seconds " s there was no " what ".") {})))
              (Thread/sleep 100)
              (recur))))))

(defn- leader-port [ports]
  (await-true "leader"
              #(some->> (page (first ports) "/_cluster") second (re-find #"\"leader\":\"localhost:(\d+)\"") second parse-long)))

(defn- delete-tree! [^File file]
  (run! delete-tree! (.listFiles file))
  (.delete file))

(defn- with-servers
  "Calls `(f processes leader ports)`. The data lies below target/, on the disk of the checkout."
  [f]
  (let [parent    (doto (io/file "target" "bench" "tmp") .mkdirs)
        folder    (.toFile (Files/createTempDirectory (.toPath ^File parent) "http-" (make-array FileAttribute 0)))
        ports     (free-ports)
        processes (mapv #(start! folder ports %) ports)
        end!      (fn []
                    (run! #(.destroyForcibly ^Process %) processes)
                    (run! #(.waitFor ^Process % 10 TimeUnit/SECONDS) processes))
        hook      (Thread. ^Runnable end!)]
    (.addShutdownHook (Runtime/getRuntime) hook)
    (try
      (doseq [port ports]
        (await-true (str "server on port " port) #(= 200 (first (page port "/_health")))))
      (f processes (leader-port ports) ports)
      (finally
        (end!)
        (.removeShutdownHook (Runtime/getRuntime) hook)
        (delete-tree! folder)))))

(defn- cpu-us
  "Processor time that the processes have used so far, in microseconds."
  [handles]
  (reduce + (map (fn [^ProcessHandle handle]
                   (let [^Duration used (-> handle .info .totalCpuDuration (.orElse Duration/ZERO))]
                     (/ (.toNanos used) 1000.0)))
                 handles)))

;; -------------------------------------------------------------------------------------------------------------- load

(defn- own-client
  "Figures of one measurement by the client of quorate.load."
  [{:keys [variant n bytes seconds port]}]
  (let [arguments (concat ["-c" (str n) "-d" (str seconds) "-k" (str keys-count) "--value-size" (str bytes)]
                          (case variant
                            "PUT"              ["--mix" "0:1"]
                            "GET linearizable" ["--mix" "1:0"]
                            "GET local"        ["--mix" "1:0" "--read" "local"])
                          [(str "localhost:" port)])
        {:keys [writes reads errors ops-per-s] :as summary}
        (load/run-load (assoc (options/parse arguments) :screen {:terminal? false, :drawn (atom 0), :say (fn [_])}))
        {:keys [p50-us p99-us p999-us max-us]} (if (= "PUT" variant) writes reads)]
    (when-not (zero? (long (load/exit-status summary)))
      (throw (ex-info (str variant " with " n " connections went wrong: " errors " " (:why summary)) {})))
    {:seconds (:seconds summary), :ops_per_s ops-per-s, :p50_us p50-us, :p99_us p99-us, :p999_us p999-us, :max_us max-us
     :operations (:operations summary)}))

(defn- wrk-script
  "What wrk sends, in Lua."
  [{:keys [variant bytes]}]
  (str "math.randomseed(os.time())\n"
       "local put, value, query = " (= "PUT" variant) ", string.rep('v', " bytes "), '" (if (= "GET local" variant) "?consistency=local" "") "'\n"
       "function request()\n"
       "  local path = '/load-' .. math.random(0, " (dec (long keys-count)) ") .. query\n"
       "  if put then return wrk.format('PUT', path, nil, value) end\n"
       "  return wrk.format('GET', path)\n"
       "end\n"
       "function done(summary, latency, requests)\n"
       "  io.write(string.format('FIGURES %d %d %f %f %f %f %d\\n', summary.requests, summary.duration, latency:percentile(50),\n"
       "    latency:percentile(99), latency:percentile(99.9), latency.max, summary.errors.status + summary.errors.connect +\n"
       "    summary.errors.read + summary.errors.write + summary.errors.timeout))\n"
       "end\n"))

(defn- wrk
  "Figures of one measurement by wrk."
  [{:keys [n seconds port] :as what}]
  (let [script (File/createTempFile "quorate-bench" ".lua")]
    (try
      (spit script (wrk-script what))
      (let [{:keys [exit out err]} (shell/sh "wrk" "-t1" (str "-c" n) (str "-d" seconds "s") "-s" (str script) (str "http://localhost:" port "/"))
            figures (some-> (re-find #"FIGURES (.*)" out) second (str/split #" "))
            [requests micros p50 p99 p999 longest errors] (map parse-double figures)]
        (when-not (and (zero? (long exit)) errors (zero? (double errors)))
          (throw (ex-info (str "wrk failed: " out err) {})))
        {:seconds (/ (double micros) 1e6), :ops_per_s (/ (Math/rint (/ (double requests) (double micros) 1e-7)) 10.0)
         :p50_us p50, :p99_us p99, :p999_us p999, :max_us longest, :operations requests})
      (finally (.delete script)))))

(defn- wrk? []
  (try (shell/sh "wrk" "-v")
       true
       (catch java.io.IOException _ false)))

;; -------------------------------------------------------------------------------------------------------------- rows

(defn- per-operation [us operations]
  (/ (Math/rint (* 10.0 (/ (double us) (max 1.0 (double operations))))) 10.0))

(defn- measured!
  "One row, printed and written."
  [^File file processes [system client] {:keys [variant n bytes round] :as what}]
  (let [servers  (map #(.toHandle ^Process %) processes)
        own      [(ProcessHandle/current)]
        before   [(cpu-us servers) (cpu-us own)]
        figures  (client what)
        [s o]    (map - [(cpu-us servers) (cpu-us own)] before)
        total    (:operations figures)
        row      (merge (array-map :part "http", :system system, :variant variant, :n n, :bytes bytes, :round round)
                        (dissoc figures :operations)
                        {:more (cond-> {:to "leader", :servers_us (per-operation s total)}
                                 (= own-client client) (assoc :client_us (per-operation o total)))})]
    (spit file (str (json/write row) "\n") :append true)
    (println (format "%-20s %-17s N %3d  round %d  %,9.0f/s  p50 %,8.0f us  p99 %,8.0f us  %s"
                     system variant n round (double (:ops_per_s row)) (double (:p50_us row)) (double (:p99_us row)) (:more row)))
    (flush)))

(defn- numbers [text]
  (when (re-matches #"[0-9]{1,4}(,[0-9]{1,4})*" text)
    (mapv parse-long (str/split text #","))))

(def ^:private specification
  [[nil "--quick" "One short round"]
   [nil "--seconds S" "Of each measurement" :default 4 :parse-fn parse-long :validate [#(and % (pos? (long %))) "a whole number"]]
   [nil "--rounds N" "Of all measurements" :default 3 :parse-fn parse-long :validate [#(and % (pos? (long %))) "a whole number"]]
   [nil "--n N,N" "Connections" :default [1 16 64] :parse-fn numbers :validate [seq "numbers with commas between them"]]
   [nil "--bytes B" "Of a value" :default 128 :parse-fn parse-long :validate [#(and % (<= 0 (long %) 1000000)) "a whole number up to 1000000"]]])

(defn- bench! [{:keys [seconds rounds n bytes quick]}]
  (let [[seconds rounds] (if quick [1 1] [seconds rounds])
        file     (io/file "target" "bench" "http.jsonl")
        clients  (cond-> [["quorate http" own-client]]
                   (wrk?) (conj ["quorate http (wrk)" wrk]))]
    (io/make-parents file)
    (spit file "")
    (with-servers
      (fn [processes leader _ports]
        ;; Writes first: reads find the keys then.
        (doseq [variant variants]
          (own-client {:variant variant, :n 16, :bytes bytes, :seconds (if quick 1 warm-up-seconds), :port leader}))
        (doseq [round (range 1 (inc (long rounds))), variant variants, connections n, client clients]
          (measured! file processes client
                     {:variant variant, :n connections, :bytes bytes, :round round, :seconds seconds, :port leader}))))))

(defn -main
  "Prints a line for each measurement; exits with 1 when something went wrong, 2 for bad usage."
  [& arguments]
  (let [{:keys [options errors summary]} (cli/parse-opts arguments specification)]
    (if errors
      (do (binding [*out* *err*] (println (str/join "\n" errors) (str "\n" summary)))
          (System/exit 2))
      (do (try (bench! options)
               (catch Exception thrown
                 (binding [*out* *err*] (println (ex-message thrown)))
                 (System/exit 1)))
          (System/exit 0)))))
