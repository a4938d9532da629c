(ns bench.pauses
  "Full collections of seconds on the leader, again and again, with an election timeout of 500 ms: three JVMs with large live heaps,
  SerialGC, `System.gc` in a loop on the leader, while another node writes one entry after the other.

      lein with-profile +bench run -m bench.pauses [--quick] [--seconds 120] [--mib 1200]

  Variants: `state in the JVM` (a reducer), `state in the engine` (the key-value store). `more` has the elections (changes of term), the
  collections with their longest, the writes acknowledged while the leader's JVM stood still, and the gaps between the leader's
  appends as its followers saw them (the bound of the bucket that has the 99th percentile, and the longest)."
  (:require [bench.cluster :as cluster]
            [bench.harness :as harness])
  (:import (java.io File)))

(set! *warn-on-reflection* true)

(def ^:private between-ms "From one collection to the next." 700)
(def ^:private config {:timeout-ms 500, :heartbeat-ms 50})
(def ^:private variants {"state in the JVM" :edn, "state in the engine" :kv})

(defn- within
  "How many of the sorted `times` lie inside one of `pauses`."
  [times pauses]
  (count (filter (fn [t] (some (fn [[from to]] (< from t to)) pauses)) times)))

(defn- gap-p99
  "The bound of the bucket that has the 99th percentile, of the growth of the counts from `before` to `after`; nil beyond the last."
  [before after]
  (let [grown (map (fn [[bound n] [_ n0]] [bound (- n n0)]) after before)
        total (second (last grown))]
    (ffirst (filter (fn [[_ n]] (>= n (* 0.99 total))) grown))))

(defn- timeline [start times pauses]
  (let [second-of (fn [t] (quot (- t start) 1000))]
    {:label "writes a second; ms of a collection"
     :series {"writes/s" (sort (frequencies (map second-of times)))
              "pause ms" (mapv (fn [[from to]] [(/ (- from start) 1000.0) (- to from)]) pauses)}}))

(defn- longest-silence
  "The longest time without an acknowledgement, in ms."
  [times]
  (reduce max 0 (map - (rest times) times)))

(defn- measure! [[a b c :as _members] kind seconds]
  (let [gaps   (fn [] (mapv #(harness/ask! % {:op :gaps} 30) [b c]))
        before (gaps)
        facts  (harness/ask! b {:op :facts} 30)
        start  (System/currentTimeMillis)]
    (harness/send! a (pr-str {:op :collect, :seconds seconds, :between-ms between-ms}))
    (let [times  (harness/ask! b {:op :write, :kind kind, :seconds seconds} (+ 60 seconds))
          pauses (read-string (harness/line! a (+ 60 seconds)))
          after  (gaps)
          facts' (harness/ask! b {:op :facts} 30)]
      (when (empty? pauses) (throw (ex-info "No collection was made." {})))
      {:seconds seconds, :ops_per_s (harness/rounded (/ (count times) (double seconds)))
       :more {:elections (- (:term facts') (:term facts)), :same_leader (= (:leader facts) (:leader facts'))
              :pauses (count pauses), :pause_max_ms (reduce max (map (fn [[f t]] (- t f)) pauses))
              :pause_sum_ms (reduce + (map (fn [[f t]] (- t f)) pauses))
              :writes_during_pauses (within times pauses), :writes (count times), :longest_silence_ms (longest-silence times)
              :gap_p99_ms (let [found (map #(gap-p99 (:counts %1) (:counts %2)) before after)]
                            (when (every? some? found) (reduce max found)))
              :gap_max_ms (harness/rounded (reduce max (map :max-ms after)))
              :collector "SerialGC, System.gc in a loop on the leader"
              :timeline (timeline start times pauses)}})))

(defn- run-variant! [[variant kind] seconds mib]
  (let [^File dir (harness/temporary-directory)
        heap (+ 400 (long (* 1.25 mib)))]
    (try
      (harness/with-members [members]
        (cluster/start! members dir {:kind kind, :followers :jvm, :config config
                                     :jvm ["-XX:+UseSerialGC" (str "-Xmx" heap "m") (str "-Xms" heap "m")]})
        (doseq [member @members] (harness/send! member (pr-str {:op :fill, :mib mib})))
        (doseq [member @members] (harness/line! member 120))
        (harness/ask! (first @members) {:op :lead} 60)
        (let [row (measure! @members kind seconds)]
          (harness/row! "pauses" (assoc row :system "quorate clojure", :variant variant, :n 1, :round 1))
          (println (format "%-20s %s" variant (pr-str (dissoc (:more row) :timeline))))
          (flush)))
      (finally
        (harness/delete-tree! dir)))))

(defn -main
  "Runs both variants. Counts; the row says what came of it."
  [& args]
  (let [asked  (harness/options {"--quick" true, "--seconds" harness/number, "--mib" harness/number
                                 "--variant" (fn [text] (if (variants text) text (throw (IllegalArgumentException. ^String text))))} args)
        quick? (get asked "--quick")]
    (harness/begin! "pauses")
    (doseq [variant (if-let [v (get asked "--variant")] [[v (variants v)]] variants)]
      (run-variant! variant (get asked "--seconds" (if quick? 20 120)) (get asked "--mib" 1200)))
    (shutdown-agents)))
