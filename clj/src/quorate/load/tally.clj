(ns quorate.load.tally
  "What came of the operations: latencies (HdrHistogram, three digits), errors by kind, and both over time."
  (:import (java.util.concurrent ConcurrentHashMap)
           (java.util.concurrent.atomic LongAdder)
           (java.util.function Function)
           (org.HdrHistogram AbstractHistogram Histogram Recorder)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const longest-ns "Longer latencies count as this: an hour." 3600000000000)
(def ^:private digits 3)

(def points-max
  "Points in time that are kept; beyond it two become one, so that a run of days needs no more memory than one of minutes."
  600)

(defn- histogram ^Histogram []
  (doto (Histogram. (long longest-ns) (int digits))
    (.setAutoResize true)))

(defn- recorder ^Recorder []
  (Recorder. (long longest-ns) (int digits)))

(def ^:private new-adder
  (reify Function (apply [_ _] (LongAdder.))))

(defn- add-one! [^ConcurrentHashMap counters k]
  (.increment ^LongAdder (.computeIfAbsent counters k new-adder)))

(defn start
  "An empty tally, of a run that begins now."
  []
  {:began   (System/nanoTime)
   :now     {:writes (recorder), :reads (recorder)}
   :totals  {:writes (histogram), :reads (histogram)}
   :absent  (LongAdder.)
   :invalid (LongAdder.)
   :errors  (ConcurrentHashMap.)
   :retried (ConcurrentHashMap.)
   :reasons (ConcurrentHashMap.)
   :answers (ConcurrentHashMap.)
   :series  (atom {:points [], :width 1, :open nil})
   :looked  (atom (System/nanoTime))})

;; --- by the workers

(defn answered!
  "An operation was answered, so many nanoseconds after it was due, by the node of that name."
  [{:keys [now answers]} write? node-name ^long latency-ns]
  (add-one! answers node-name)
  (let [^Recorder recorder (if write? (:writes now) (:reads now))]
    (.recordValue recorder (max 0 (min latency-ns (long longest-ns))))))

(defn absent!
  "A read found no value, which is an answer too."
  [tally]
  (.increment ^LongAdder (:absent tally)))

(defn failed!
  "An operation was given up, for the last reason of `kind`, of which the text `reason` is kept as an example."
  [{:keys [errors reasons]} kind reason]
  (add-one! errors kind)
  (.putIfAbsent ^ConcurrentHashMap reasons kind reason))

(defn retried!
  "An operation is tried again, because of `kind`."
  [{:keys [retried]} kind]
  (add-one! retried kind))

(defn invalid!
  "A line was no operation, or the servers refuse it."
  [tally]
  (.increment ^LongAdder (:invalid tally)))

;; --- by whoever looks

(defn- counts [^ConcurrentHashMap counters]
  (into (sorted-map) (map (fn [[k ^LongAdder n]] [k (.sum n)])) counters))

(defn merged
  "Two neighbouring points as one; a percentile of both is not known, the higher one bounds it."
  [a b]
  (-> (merge-with max (select-keys a [:p50-ms :p99-ms :max-ms]) (select-keys b [:p50-ms :p99-ms :max-ms]))
      (assoc :at (:at b)
             :seconds (+ (double (:seconds a)) (double (:seconds b)))
             :operations (+ (long (:operations a)) (long (:operations b))))))

(defn with-point
  "The series with one more point, thinned when it is long."
  [{:keys [points width open]} point]
  (let [{:keys [left] :as open} (if open
                                  (-> open (update :point merged point) (update :left dec))
                                  {:point point, :left (dec (long width))})]
    (cond (pos? (long left))                             {:points points, :width width, :open open}
          (< (inc (count points)) (long points-max))     {:points (conj points (:point open)), :width width, :open nil}
          :else {:points (mapv #(reduce merged %) (partition-all 2 (conj points (:point open)))), :width (* 2 (long width)), :open nil})))

(defn series
  "The points so far, the last ones included that are not yet as wide as the others."
  [tally]
  (let [{:keys [points open]} @(:series tally)]
    (cond-> points open (conj (:point open)))))

(defn- ms [^long ns] (/ (double ns) 1e6))

(defn- quantile-ms [^AbstractHistogram latencies ^double percent]
  (ms (.getValueAtPercentile latencies percent)))

(defn- taken
  "What was recorded since the last time, for one kind, added to its total."
  ^Histogram [{:keys [now totals]} kind]
  (let [latest (.getIntervalHistogram ^Recorder (kind now))]
    (.add ^Histogram (kind totals) latest)
    latest))

(defn look!
  "What happened since the last look, as a point: `:at` (seconds since the beginning), `:seconds`, `:operations`, `:p50-ms`, `:p99-ms`,
  `:max-ms`. It becomes a part of the totals and of the series. One thread at a time."
  [{:keys [began looked series] :as tally}]
  (locking looked
    (let [now     (System/nanoTime)
          latest  (doto (histogram)
                    (.add (taken tally :writes))
                    (.add (taken tally :reads)))
          point   {:at         (/ (- now (long began)) 1e9)
                   :seconds    (/ (- now (long @looked)) 1e9)
                   :operations (.getTotalCount latest)
                   :p50-ms     (quantile-ms latest 50.0)
                   :p99-ms     (quantile-ms latest 99.0)
                   :max-ms     (ms (.getMaxValue latest))}]
      (reset! looked now)
      (swap! series with-point point)
      point)))

(defn- latencies [^Histogram total]
  (let [us #(/ (Math/rint (* 10.0 (/ (double (long %)) 1e3))) 10.0)]
    (if (zero? (.getTotalCount total))
      {:count 0}
      {:count   (.getTotalCount total)
       :mean-us (us (long (.getMean total)))
       :p50-us  (us (.getValueAtPercentile total 50.0))
       :p90-us  (us (.getValueAtPercentile total 90.0))
       :p99-us  (us (.getValueAtPercentile total 99.0))
       :p999-us (us (.getValueAtPercentile total 99.9))
       :max-us  (us (.getMaxValue total))})))

(defn operations
  "Operations answered, as of the last [[look!]]."
  ^long [{:keys [looked totals]}]
  (locking looked
    (long (reduce + (map #(.getTotalCount ^Histogram %) (vals totals))))))

(defn error-count
  "Operations given up so far."
  ^long [{:keys [errors]}]
  (long (reduce + 0 (vals (counts errors)))))

(defn invalid-count
  "Invalid lines so far."
  ^long [tally]
  (.sum ^LongAdder (:invalid tally)))

(defn summary
  "All there is to tell, after a last [[look!]]:

    :seconds :operations :ops-per-s
    :writes :reads   {:count :mean-us :p50-us :p90-us :p99-us :p999-us :max-us}
    :absent          reads without a value
    :errors :retried kind → number
    :reasons         kind → the first text of it
    :answers         node → operations that it answered
    :invalid-lines"
  [{:keys [began totals absent errors retried reasons answers] :as tally}]
  (look! tally)
  (let [seconds    (/ (- (long @(:looked tally)) (long began)) 1e9)
        kinds      (update-vals totals latencies)
        operations (+ (long (:count (:writes kinds))) (long (:count (:reads kinds))))]
    (assoc kinds
           :seconds       seconds
           :operations    operations
           :ops-per-s     (/ (Math/rint (* 10.0 (/ operations (max seconds 1e-9)))) 10.0)
           :absent        (.sum ^LongAdder absent)
           :errors        (counts errors)
           :retried       (counts retried)
           :reasons       (into {} reasons)
           :answers       (counts answers)
           :invalid-lines (invalid-count tally))))
