(ns quorate.pauses-test
  "A JVM that stands still for longer than the election timeout costs no election: three nodes in this JVM, full collections of it."
  (:require [clojure.test :refer [deftest is]]
            [quorate.clusters :as clusters]
            [quorate.raft :as raft]))

(set! *warn-on-reflection* true)

(def ^:private timeout-ms 300)
(def ^:private wanted "Collections longer than the election timeout." 4)

(defn- live-objects
  "So many small objects, linked in no order, that a collection takes its time."
  [n]
  (let [nodes (object-array n)
        random (java.util.Random. 1)]
    (dotimes [i n]
      (aset nodes i (object-array 1)))
    (dotimes [i n]
      (aset ^objects (aget nodes i) 0 (aget nodes (.nextInt random n))))
    nodes))

(defn- collect!
  "Forces full collections until enough were longer than the election timeout; how many were, a minute at most."
  []
  (let [end (+ (System/currentTimeMillis) 60000)]
    (loop [long-ones 0]
      (if (or (= wanted long-ones) (> (System/currentTimeMillis) end))
        long-ones
        (let [began (System/nanoTime)]
          (System/gc)
          (let [took-ms (quot (- (System/nanoTime) began) 1000000)]
            (Thread/sleep 50)
            (recur (if (> took-ms (long timeout-ms)) (inc long-ones) long-ones))))))))

(deftest collections-longer-than-the-election-timeout-cost-no-election
  (let [live (live-objects 12000000)]
    (clusters/with-nodes ["a" "b" "c"]
      (fn [config] (raft/start (merge config {:reducer (fn [n _ _] [(inc (long n)) n]), :initial-state 0
                                              :timeout-ms timeout-ms, :heartbeat-ms 50})))
      raft/close
      (fn [nodes]
        (let [node   (get nodes "a")
              before (raft/status node)]
          (is (= wanted (collect!)) "so many collections were longer than the election timeout")
          (is (= (select-keys before [:term :leader]) (select-keys (raft/status node) [:term :leader])) "and none cost an election")
          (let [answer (promise)]
            (raft/new-entry node :after #(deliver answer %))
            (is (= 0 (deref answer 10000 :none)) "and the nodes go on")))))
    (is (= 12000000 (alength ^objects live)))))
