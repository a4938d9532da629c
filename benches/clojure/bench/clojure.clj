(ns bench.clojure
  "Three processes, each with fsync; the leader's JVM drives a closed loop through `quorate.raft/new-entry` and `quorate.kv`; beside
  it, round by round, the engine alone in Rust, so that the ratio is of one run.

      lein with-profile +bench run -m bench.clojure [--quick] [--rounds 2] [--seconds 2] [--n 1,16,64,256,1024]
          [--rows bytes,edn,kv,bytes-engine-followers,engine,engine-kv] [--bytes 128] [--keep] [--out FILE] [--threads]

  rows: `bytes` byte arrays with a reducer that counts; `edn` maps of 128 bytes with a reducer that keeps them under their keys;
  `kv` puts; all with three JVMs. `bytes-engine-followers` the first, with the followers in Rust: what the leader's JVM alone costs.
  `engine` and `engine-kv`: `quorate-bench writers`. `--threads` prints what each thread of the JVMs ran for an entry, in microseconds
  on a processor, above the row (where there is /proc)."
  (:require [bench.cluster :as cluster]
            [bench.harness :as harness]
            [clojure.java.io :as io]
            [clojure.string :as str])
  (:import (java.io File)))

(set! *warn-on-reflection* true)

(def ^:private all-rows ["engine" "bytes" "bytes-engine-followers" "edn" "engine-kv" "kv"])
(def ^:private warm-up-first "Seconds before the first measurement in a new JVM: compiling takes that long." 6)

(defn- say! [{:keys [system variant n round ops_per_s p50_us p99_us more]}]
  (println (format "%-16s %-24s N %4d  round %d  %,11.0f ops/s  p50 %,9.1f us  p99 %,9.1f us%s"
                   system variant n round (double ops_per_s) (double p50_us) (double p99_us)
                   (if-let [b (:allocated_per_op more)] (format "  %,.0f B/op" (double b)) "")))
  (flush))

(defn- row! [row]
  (harness/row! "clojure" row)
  (say! row))

;; ------------------------------------------------------------------------------------------------------ in JVMs

(def ^:private variants
  {"bytes"                  {:kind :bytes, :followers :jvm}
   "bytes-engine-followers" {:kind :bytes, :followers :engine}
   "edn"                    {:kind :edn, :followers :jvm}
   "kv"                     {:kind :kv, :followers :jvm}
   "kv-engine-followers"    {:kind :kv, :followers :engine}})

(defn- thread-costs
  "Microseconds on a processor an entry, by thread, of those that matter."
  [before after entries]
  (into (sorted-map)
        (keep (fn [[thread ns]]
                (let [us (/ (- ns (get before thread 0)) 1000.0 (max 1 entries))]
                  (when (> us 0.02) [thread (/ (Math/round (* 100.0 us)) 100.0)]))))
        after))

(defn- ask-threads [members]
  (into {} (map (fn [member] [(:name member) (harness/ask! member {:op :threads} 30)])) members))

(defn- run-jvm! [{:keys [ns bytes seconds threads?]} round variant]
  (let [{:keys [kind followers] :as how} (variants variant)
        ^File dir (harness/temporary-directory)]
    (try
      (harness/with-members [members]
        (let [leader (cluster/start! members dir how)]
          (doseq [[i n] (map-indexed vector ns)]
            (let [jvms   (when threads? (if (= :jvm followers) @members [leader]))
                  ran    (ask-threads jvms)
                  before (harness/ask! leader {:op :facts} 30)
                  found  (harness/ask! leader {:op :load, :kind kind, :n n, :bytes bytes, :seconds seconds
                                               :warm-up (if (zero? i) warm-up-first 2)}
                                       (+ 90 seconds))
                  after  (harness/ask! leader {:op :facts} 30)]
              (when-not (= (:term before) (:term after))
                (throw (ex-info (str "The leadership moved while " n " were in flight; the figures would mean nothing.") {})))
              (doseq [[member since] ran]
                (println " " member (thread-costs since (get (ask-threads jvms) member) (- (:index after) (:index before)))))
              (row! (-> (select-keys found [:seconds :ops_per_s :p50_us :p99_us :p999_us :max_us])
                        (assoc :system "quorate clojure", :variant variant, :n n, :bytes bytes, :round round
                               :more {:followers (name followers), :allocated_per_op (:allocated_per_op found)
                                      :log_syncs (- (:syncs after) (:syncs before)), :load_average (harness/load-average)})))))))
      (finally
        (harness/delete-tree! dir)))))

;; ------------------------------------------------------------------------------------------------------ in Rust

(defn- number-in [line key]
  (parse-double (second (re-find (re-pattern (str "\"" key "\": *([0-9.]+)")) line))))

(defn- run-engine! [{:keys [ns bytes seconds]} round variant machine]
  (let [member (harness/spawn! "engine" [(cluster/bench-program) "writers" "--writers" (str/join "," ns) "--seconds" (str seconds)
                                         "--bytes" (str bytes) "--machine" machine
                                         "--dir" (str (.getAbsoluteFile (io/file "target" "bench")))])]
    (try
      (doseq [n ns]
        (let [line (harness/line! member (+ 90 seconds))]
          (row! {:system "quorate engine", :variant variant, :n n, :bytes bytes, :round round
                 :seconds (number-in line "seconds"), :ops_per_s (number-in line "ops_per_s")
                 :p50_us (number-in line "p50_us"), :p99_us (number-in line "p99_us"), :max_us (number-in line "max_us")
                 :more {:load_average (harness/load-average)}})))
      (finally
        (harness/end! member)))))

(defn- run-row! [options round row]
  (case row
    "engine"    (run-engine! options round "counter" "counter")
    "engine-kv" (run-engine! options round "kv" "kv")
    (run-jvm! options round row)))

(def ^:private known
  {"--quick" true, "--rounds" harness/number, "--seconds" harness/number, "--bytes" harness/number, "--n" harness/numbers, "--keep" true, "--threads" true, "--out" io/file
   "--rows" (fn [text]
              (let [rows (str/split text #",")]
                (when-let [strange (first (remove (into #{"engine" "engine-kv"} (keys variants)) rows))]
                  (throw (IllegalArgumentException. ^String strange)))
                rows))})

(defn- settings [asked]
  (let [quick? (get asked "--quick")]
    {:rounds  (get asked "--rounds" (if quick? 1 2))
     :seconds (get asked "--seconds" 2)
     :threads? (get asked "--threads")
     :bytes   (get asked "--bytes" 128)
     :ns      (get asked "--n" (if quick? [1 64 1024] [1 16 64 256 1024]))
     :rows    (get asked "--rows" all-rows)}))

(defn -main
  "Measures every row in every round; the rows of a round one after the other. `--keep` adds to the rows of the run before; `--out`
  appends to a file of one's own."
  [& args]
  (let [asked (harness/options known args)
        {:keys [rounds rows] :as options} (settings asked)]
    (binding [harness/*out-file* (get asked "--out")]
      (when-not (or (get asked "--keep") (get asked "--out"))
        (harness/begin! "clojure"))
      (doseq [round (range 1 (inc (long rounds))), row rows]
        (run-row! options round row)))
    (shutdown-agents)))
