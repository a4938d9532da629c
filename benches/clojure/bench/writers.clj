(ns bench.writers
  "The closed loop: so many entries are in flight, each answer sends the next, from the thread that brings it. The loop itself
  allocates nothing an entry, so that what is measured is the library."
  (:require [bench.harness :as harness]
            [quorate.kv :as kv]
            [quorate.raft :as raft])
  (:import (com.sun.management ThreadMXBean)
           (java.lang.management ManagementFactory)
           (java.util Random)
           (java.util.concurrent.atomic AtomicInteger AtomicLong AtomicReference)
           (java.util.function BiConsumer)
           (org.HdrHistogram Histogram)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const patience-ms "How long an entry may take before it counts as failed." 30000)
(def ^:private ^:const keys-count "Keys that entries go round." 10000)
(def ^:private ^:const values-count "Values made beforehand." 1024)

(definterface Loop
  (^int phase [])
  (^void took [^long ns])
  (^void ended [failure])
  (^void submit [writer]))

(definterface Submitting
  (^void submit [^long now]))

(deftype Writer [^Loop load ^:unsynchronized-mutable ^long started]
  Submitting
  (submit [this now]
    (set! started now)
    (try
      (.submit load this)
      (catch Throwable t
        (.ended load t))))
  clojure.lang.IFn
  (invoke [this answer]
    (if (instance? Throwable answer)
      (.ended load answer)
      (case (.phase load)
        2 (.ended load nil)
        ;; One look at the clock an entry, as in the peers' loads.
        (let [now (System/nanoTime)]
          (.took load (- now started))
          (.submit this now)))))
  BiConsumer
  (accept [this answer failure]
    (.invoke this (or failure answer))))

(defn- text-of
  "A text of `n` letters."
  [^Random random ^long n]
  (apply str (repeatedly n #(char (+ 97 (.nextInt random 26))))))

(defn edn-entry
  "An EDN map for the key number `i`, which takes `bytes` bytes as text."
  [^Random random ^long i ^long bytes]
  (let [bare {:op :set, :key (str "key-" (format "%05d" i)), :n i, :at {:x 1.5, :tags [:a :b]}, :value ""}]
    (assoc bare :value (text-of random (max 1 (- bytes (count (pr-str bare))))))))

(defn submitter
  "A function that submits the next entry of `kind` for a [[Writer]]."
  [kind node store ^long bytes]
  (let [random (Random. 1)
        turn   (AtomicLong.)]
    (case kind
      :bytes (let [entry (byte-array bytes (byte 120))]
               (fn [writer] (raft/new-entry node entry writer patience-ms)))
      :edn   (let [entries (object-array (map #(edn-entry random % bytes) (range values-count)))]
               (fn [writer]
                 (raft/new-entry node (aget entries (rem (.getAndIncrement turn) (long values-count))) writer patience-ms)))
      :kv    (let [names  (object-array (map #(format "key-%05d" %) (range keys-count)))
                   value  (text-of random bytes)
                   within {:timeout-ms patience-ms}]
               (fn [writer]
                 (let [k (aget names (rem (.getAndIncrement turn) (long keys-count)))]
                   (.whenComplete ^java.util.concurrent.CompletableFuture (kv/put! store k value within)
                                  ^BiConsumer writer)))))))

(deftype Running [submit-one ^AtomicInteger the-phase ^Histogram h ^AtomicInteger in-flight ^AtomicReference failure]
  Loop
  (phase [_] (.get the-phase))
  (took [_ ns]
    (when (= 1 (.get the-phase))
      (.recordValue h (min ns 60000000000))))
  (ended [_ t]
    (when t (.compareAndSet failure nil t))
    (.decrementAndGet in-flight))
  (submit [_ writer]
    (submit-one writer)))

(defn- allocated
  "Bytes that the threads of this process that still live have allocated, by thread id."
  []
  (let [^ThreadMXBean bean (ManagementFactory/getThreadMXBean)
        ids (.getAllThreadIds bean)]
    (zipmap ids (.getThreadAllocatedBytes bean ids))))

(defn- allocated-between ^long [before after]
  (reduce-kv (fn [^long sum id ^long bytes]
               (+ sum (- bytes (long (get before id 0)))))
             0 after))

(defn- await-zero! [^AtomicInteger in-flight]
  (let [end (+ (System/nanoTime) 60000000000)]
    (while (pos? (.get in-flight))
      (when (> (System/nanoTime) end)
        (throw (ex-info "Entries got no answer, not even that their time ran out." {})))
      (Thread/sleep 2))))

(defn measured!
  "Keeps `n` submissions of `submit-one` in flight for `seconds`, after `warm-up` seconds; figures of a row, with the bytes that
  this JVM's threads allocated an entry. Throws the first failure."
  [submit-one n warm-up seconds]
  (let [phase     (AtomicInteger.)
        h         (harness/histogram)
        in-flight (AtomicInteger. n)
        failure   (AtomicReference.)
        running   (Running. submit-one phase h in-flight failure)]
    (dotimes [_ n]
      (.submit (Writer. running 0) (System/nanoTime)))
    (Thread/sleep (* 1000 (long warm-up)))
    (let [before  (allocated)
          started (System/nanoTime)]
      (.set phase 1)
      (Thread/sleep (* 1000 (long seconds)))
      (.set phase 2)
      (let [took  (/ (- (System/nanoTime) started) 1e9)
            after (allocated)]
        (await-zero! in-flight)
        (when-let [t (.get failure)]
          (throw t))
        (let [ops (.getTotalCount h)]
          (merge {:seconds (harness/rounded took), :ops ops, :ops_per_s (harness/rounded (/ ops took))
                  :allocated_per_op (harness/rounded (/ (allocated-between before after) (double (max 1 ops))))}
                 (harness/latencies h)))))))
