(ns bench.bridge
  "The boundary between the JVM and the engine by itself: an echo below the same submit and poll, so that nothing is measured but the
  crossing. Beside it the alternative that was not taken: one call into the JVM for each completion.

      lein with-profile +bench run -m bench.bridge [--quick] [--rounds 3] [--upcalls LIBRARY]

  The alternative needs a library built with a feature that normal builds do not have (`target/upcalls/release/`, see
  benches/README.md); without it only polling is measured, and that is said."
  (:require [bench.harness :as harness]
            [clojure.java.io :as io])
  (:import (java.io File)
           (java.nio ByteBuffer ByteOrder)
           (java.nio.charset StandardCharsets)
           (java.util.concurrent Semaphore)
           (java.util.concurrent.atomic AtomicBoolean AtomicInteger AtomicLongArray)
           (org.HdrHistogram Histogram)
           (quorate.bench Upcalls Upcalls$Sink)
           (quorate.jni Native NativeLibrary)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const buffer-bytes (* 1024 1024))
(def ^:private ^:const timeout-ms 30000)
(def ^:private ^:const slots "Start times that are kept, by ticket; more than are in flight." 4096)

(defrecord Meter [^Semaphore permits ^AtomicLongArray started ^Histogram h ^AtomicBoolean measuring ^AtomicInteger failed ^AtomicInteger polls])

(defn- meter [n]
  (->Meter (Semaphore. n) (AtomicLongArray. (int slots)) (harness/histogram) (AtomicBoolean.) (AtomicInteger.) (AtomicInteger.)))

(defn- completed! [^Meter m ^long ticket ^long status]
  (let [now  (System/nanoTime)
        slot (int (bit-and ticket (dec (long slots))))]
    (when-not (zero? status)
      (.incrementAndGet ^AtomicInteger (.-failed m)))
    (when (.get ^AtomicBoolean (.-measuring m))
      (let [began (.get ^AtomicLongArray (.-started m) slot)]
        ;; Zero when the answer was faster than the note of its beginning.
        (.recordValue ^Histogram (.-h m) (if (zero? began) 0 (- now began)))))
    (.set ^AtomicLongArray (.-started m) slot 0)
    (.release ^Semaphore (.-permits m))))

(defn- take-completions!
  "Reads what a poll brought, each payload into an array as `quorate.impl.records` does; true after the last record."
  [^ByteBuffer in ^long n m]
  (.limit in (int n))
  (.position in 0)
  (loop []
    (if (< (.position in) n)
      (let [length (.getInt in)
            end    (+ (.position in) length)
            type   (.get in)]
        (if (= type 1)
          (let [ticket  (.getLong in)
                status  (long (.get in))
                payload (byte-array (- end (.position in)))]
            (.get in payload)
            (completed! m ticket status)
            (recur))
          (do (.position in (int end))
              (if (= type 5) true (recur)))))
      false)))

(defn- polling! [handle ^Meter m]
  (let [buffer (.order (ByteBuffer/allocateDirect buffer-bytes) ByteOrder/LITTLE_ENDIAN)]
    (Native/attach handle Native/EVENTS buffer)
    (doto (Thread. (fn []
                     (loop []
                       (let [n (Native/poll handle Native/EVENTS 0 1000)]
                         (.incrementAndGet ^AtomicInteger (.-polls m))
                         (when-not (or (= n -1) (take-completions! buffer n m))
                           (recur)))))
                   "bench-poll")
      (.start))))

(defn- upcalling! [handle m]
  (doto (Thread. (fn [] (Upcalls/run handle (reify Upcalls$Sink
                                              (completed [_ ticket status _payload] (completed! m ticket status)))))
                 "bench-upcalls")
    (.start)))

(defn- submit-until!
  "Submits `body` from this thread whenever a permit is free, until `end`."
  [^long handle ^bytes body ^Meter m ^long end]
  (let [^Semaphore permits (.-permits m)
        ^AtomicLongArray started (.-started m)]
    (loop []
      (.acquire permits)
      (let [now (System/nanoTime)]
        (if (< now end)
          (let [ticket (Native/submit handle 1 body timeout-ms)]
            (.set started (int (bit-and ticket (dec (long slots)))) now)
            (recur))
          (.release permits))))))

(defn- run-one! [way bytes n seconds]
  (let [upcalls? (= way "upcall")
        handle   (if upcalls?
                   (Upcalls/open)
                   (Native/open (.getBytes "{:engine :echo :in-flight 65536}" StandardCharsets/UTF_8)))
        ^Meter m (meter n)
        body     (byte-array bytes (byte 120))
        thread   (if upcalls? (upcalling! handle m) (polling! handle m))
        second-ns 1000000000]
    (try
      (submit-until! handle body m (+ (System/nanoTime) second-ns))
      (.set ^AtomicBoolean (.-measuring m) true)
      (let [polls (.get ^AtomicInteger (.-polls m))
            start (System/nanoTime)
            _     (submit-until! handle body m (+ start (* (long seconds) second-ns)))
            took  (/ (- (System/nanoTime) start) 1e9)
            polls (- (.get ^AtomicInteger (.-polls m)) polls)]
        (.acquire ^Semaphore (.-permits m) n)
        (when (pos? (.get ^AtomicInteger (.-failed m)))
          (throw (ex-info "Calls failed." {})))
        (let [calls (.getTotalCount ^Histogram (.-h m))]
          (merge {:seconds (harness/rounded took), :ops_per_s (harness/rounded (/ calls took))
                  :more (when-not upcalls? {:calls_per_poll (harness/rounded (/ calls (double (max 1 polls))))})}
                 (harness/latencies (.-h m)))))
      (finally
        (Native/close handle)
        (.join ^Thread thread 10000)))))

(defn- ways [^String upcalls]
  (if upcalls
    (do (System/setProperty "quorate.library" upcalls)
        ["poll" "upcall"])
    (do (println "Without --upcalls or target/upcalls only polling is measured.")
        ["poll"])))

(defn- default-upcalls []
  (let [^File file (io/file "target" "upcalls" "release" (System/mapLibraryName "quorate"))]
    (when (.exists file) (.getAbsolutePath file))))

(defn -main
  "Measures both ways, with 100 bytes and 4 KiB, 1 to 1024 in flight, in turn, round by round. One thread submits."
  [& args]
  (let [asked   (harness/options {"--quick" true, "--rounds" harness/number, "--upcalls" identity} args)
        quick?  (get asked "--quick")
        seconds (if quick? 1 2)
        ways    (ways (or (get asked "--upcalls") (default-upcalls)))]
    (NativeLibrary/load)
    ;; Compiled before anything counts.
    (doseq [way ways] (run-one! way 100 64 2))
    (harness/begin! "bridge")
    (doseq [round (range 1 (inc (long (get asked "--rounds" (if quick? 1 3)))))
            bytes [100 4096], n (if quick? [1 1024] [1 16 64 256 1024]), way ways]
      (let [{:keys [ops_per_s p50_us p99_us more] :as row} (run-one! way bytes n seconds)]
        (harness/row! "bridge" (assoc row :system "bridge", :variant way, :n n, :bytes bytes, :round round))
        (println (format "%-8s %5d bytes  N %4d  round %d  %,11.0f calls/s  p50 %,8.1f us  p99 %,8.1f us  %s"
                         way bytes n round (double ops_per_s) (double p50_us) (double p99_us) (or more "")))
        (flush)))
    (shutdown-agents)))
