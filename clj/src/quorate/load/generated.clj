(ns quorate.load.generated
  "Generated operations: a mix of reads and writes, over keys `load-0` to `load-(N-1)`."
  (:require [quorate.load.operation :as operation :refer [->Operation]])
  (:import (java.util SplittableRandom)
           (java.util.concurrent ThreadLocalRandom)
           (java.util.concurrent.atomic AtomicLong)
           (org.apache.commons.rng UniformRandomProvider)
           (org.apache.commons.rng.sampling.distribution RejectionInversionZipfSampler SharedStateDiscreteSampler)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def zipf-exponent "As in YCSB: the most wanted of 10,000 keys gets one operation in ten." 0.99)

(def ^:private spare-bytes
  "A value is a window on a longer text, at a place by chance, so that values differ and none is made anew."
  4096)

(defn- letters
  "`n` lower-case letters, which do not repeat themselves."
  ^bytes [^long n]
  (let [octets (byte-array n)
        chance (SplittableRandom. 1)]
    (dotimes [at n]
      (aset octets at (unchecked-byte (+ 97 (.nextInt chance 26)))))
    octets))

(defn- thread-random
  "The calling thread's own random numbers, as the sampler takes them."
  ^UniformRandomProvider []
  (reify UniformRandomProvider
    (nextLong [_] (.nextLong (ThreadLocalRandom/current)))
    (nextDouble [_] (.nextDouble (ThreadLocalRandom/current)))))

(defn chooser
  "A function of the operation's number, from 0: the number of its key, from 0 to `n`, by `distribution`, which is `\"uniform\"`,
  `\"zipf\"` or `\"sequential\"`. For many threads."
  [distribution ^long n]
  (case distribution
    "uniform"    (fn [_] (.nextLong (ThreadLocalRandom/current) n))
    "sequential" (fn [^long i] (rem i n))
    "zipf"       (let [^SharedStateDiscreteSampler sampler
                       (RejectionInversionZipfSampler/of (thread-random) (int n) (double zipf-exponent))]
                   (fn [_] (dec (.sample sampler))))))

(deftype Generated [^AtomicLong taken ^long most choose ^double read-share ^String query ^bytes text ^long value-size]
  operation/Source
  (take-next [_]
    (let [i (.getAndIncrement taken)]
      (when (< i most)
        (let [chance (ThreadLocalRandom/current)
              path   (str "/load-" (choose i))]
          (if (and (pos? read-share) (< (.nextDouble chance) read-share))
            (->Operation false (str path query) nil 0 0 0 nil nil)
            (->Operation true path text (.nextInt chance (int spare-bytes)) value-size 0 nil nil))))))
  (share-done [_]
    (when (< most Long/MAX_VALUE)
      (min 1.0 (/ (double (.get taken)) (double most))))))

(defn source
  "The operations that the options ask for, as an `operation/Source`; without `:count` they do not end."
  [{:keys [distribution value-size read-share read] key-count :keys most :count}]
  (Generated. (AtomicLong.)
              (long (or most Long/MAX_VALUE))
              (chooser distribution (long key-count))
              (double read-share)
              (if (= "linearizable" read) "" (str "?consistency=" read))
              (letters (+ (long value-size) (long spare-bytes)))
              (long value-size)))
