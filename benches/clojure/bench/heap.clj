(ns bench.heap
  "A heap that takes long to collect, and collections of it."
  (:import (java.util Random)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const node-bytes "An array of one reference, with its place in the array of all." 28)

(defn- shuffled!
  "Links each of `nodes` to another one in no order, so that who follows the links finds nothing in a cache."
  [^objects nodes]
  (let [random (Random. 3)]
    (loop [i (dec (alength nodes))]
      (when (pos? i)
        (let [j (.nextInt random (int i))
              ^objects node (aget nodes i)]
          (aset node 0 (aget nodes j))
          (recur (dec i)))))))

(defn live
  "About `mib` MiB of small linked objects, alive as long as this is."
  [^long mib]
  (let [n     (quot (* mib 1024 1024) (long node-bytes))
        nodes (object-array n)]
    (loop [i 0]
      (when (< i n)
        (aset nodes i (object-array 1))
        (recur (inc i))))
    (shuffled! nodes)
    nodes))

(defn collect!
  "Forces a full collection, again and again with `between-ms` between them, for `seconds`. When each began and ended, in
  milliseconds since 1970."
  [seconds between-ms]
  (let [end (+ (System/currentTimeMillis) (* 1000 (long seconds)))]
    (loop [found []]
      (let [began (System/currentTimeMillis)]
        (if (< began end)
          (do (System/gc)
              (let [ended (System/currentTimeMillis)]
                (Thread/sleep (long between-ms))
                (recur (conj found [began ended]))))
          found)))))
