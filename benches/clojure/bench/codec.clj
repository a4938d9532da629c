(ns bench.codec
  "EDN to bytes and back by itself: this library's writer and reader against `pr-str` and `clojure.edn`.

      lein with-profile +bench run -m bench.codec [--quick] [--rounds 5]

  `ops_per_s` are values a second; `more` has nanoseconds and allocated bytes a value. Systems: `quorate` and `pr-str, clojure.edn`; variants: what is
  written or read, and which way."
  (:require [bench.harness :as harness]
            [bench.writers :as writers]
            [clojure.edn :as edn]
            [quorate.impl.codec :as codec])
  (:import (com.sun.management ThreadMXBean)
           (java.lang.management ManagementFactory)
           (java.nio.charset StandardCharsets)
           (java.util Random UUID)))

(set! *warn-on-reflection* true)

(def ^:private values
  "What is written and read, by name."
  (let [random (Random. 2)]
    (array-map
     "map of 128 bytes"  (writers/edn-entry random 7 128)
     "map of 1 KiB"      (writers/edn-entry random 7 1024)
     "nested"            {:user {:id 4711, :name "Ada Lovelace", :tags #{:admin :staff}}
                          :items (mapv (fn [i] {:sku (str "sku-" i), :count i, :price (* 1.25 i)}) (range 8))}
     "100 longs"         (mapv #(* % 1234567) (range 100))
     "text not in ASCII" {:text (apply str (repeat 40 "Größe λ "))}
     "uuid and inst"     {:id (UUID. 1 2), :at #inst "2024-02-29T12:00:00.001-00:00"})))

(defn- by-clojure [value]
  (.getBytes (pr-str value) StandardCharsets/UTF_8))

(defn- from-clojure [^bytes bytes]
  (edn/read-string (String. bytes StandardCharsets/UTF_8)))

(defn- spent
  "`[ns bytes]` of one call of `f` with `x`, over `ms` of calls."
  [f x ms]
  (let [^ThreadMXBean bean (ManagementFactory/getThreadMXBean)
        me     (.getId (Thread/currentThread))
        before (.getThreadAllocatedBytes bean me)
        start  (System/nanoTime)
        end    (+ start (* 1000000 (long ms)))]
    (loop [n 0, seen (long 0)]
      (if (< (System/nanoTime) end)
        (recur (+ n 16) (long (loop [i 0, seen (long seen)]
                                (if (= i 16)
                                  seen
                                  ;; The result is used, so that the compiler cannot leave the call out.
                                  (recur (inc i) (if (nil? (f x)) (inc seen) (long seen)))))))
        (do (when (= n seen) (throw (ex-info "Nothing came." {})))
            [(/ (- (System/nanoTime) start) (double n))
             (/ (- (.getThreadAllocatedBytes bean me) before) (double n))])))))

(defn- measure! [round ms what value]
  (let [^bytes text (codec/text-bytes value)
        encoded     (codec/encode value)]
    (when-not (= value (codec/decode encoded) (from-clojure text))
      (throw (ex-info (str what " does not come back.") {})))
    (doseq [[system way f x] [["quorate" "write" codec/encode value]
                              ["pr-str, clojure.edn" "write" by-clojure value]
                              ["quorate" "read" codec/decode encoded]
                              ["pr-str, clojure.edn" "read" from-clojure text]]
            :let [[ns allocated] (spent f x ms)]]
      (harness/row! "codec" {:system system, :variant (str way " " what), :bytes (alength text), :round round
                             :seconds (/ ms 1000.0), :ops_per_s (harness/rounded (/ 1e9 ns))
                             :more {:ns_per_op (harness/rounded ns), :allocated_per_op (harness/rounded allocated)}})
      (println (format "%-19s %-5s %-18s %5d bytes  %,9.0f ns  %,9.0f B" system way what (alength text) ns allocated))
      (flush))))

(defn -main
  "Measures each value in each round, after one to warm up."
  [& args]
  (let [asked  (harness/options {"--quick" true, "--rounds" harness/number} args)
        quick? (get asked "--quick")
        ms     (if quick? 200 400)]
    (doseq [[_ value] values, f [codec/encode by-clojure]] (spent f value ms))
    (doseq [[_ value] values] (spent codec/decode (codec/encode value) ms) (spent from-clojure (codec/text-bytes value) ms))
    (harness/begin! "codec")
    (doseq [round (range 1 (inc (long (get asked "--rounds" (if quick? 1 3))))), [what value] values]
      (measure! round ms what value))
    (shutdown-agents)))
