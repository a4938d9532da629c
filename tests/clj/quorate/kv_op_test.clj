(ns quorate.kv-op-test
  "The key-value operations byte by byte, as native/engine/src/kv/op.rs has them."
  (:require [clojure.test :refer [deftest is]]
            [quorate.impl.kv-op :as kv-op]
            [quorate.impl.kv-watches :as kv-watches]
            [quorate.impl.wire :as wire])
  (:import (clojure.lang ExceptionInfo)))

(set! *warn-on-reflection* true)

(defn- b ^bytes [& xs] (byte-array (map unchecked-byte xs)))
(defn- numbers [bytes] (mapv #(bit-and 0xff %) bytes))

(deftest a-transaction-in-bytes
  (is (= [1
          5 0
          2 0 0 0 2 65, 1
          2 0 0 0 2 65, 2
          2 0 0 0 2 65, 3, 1 0 0 0 9
          2 0 0 0 2 65, 4, 1 2 0 0 0 0 0 0
          2 0 0 0 2 65, 5, 3 0 0 0 0 0 0 0
          2 0
          1, 1 0 0 0 2, 0 0 0 0
          2, 2 0 0 0 2 66
          0 0]
         (numbers (kv-op/command kv-op/raw {:if   [[:exists (b 65)] [:absent (b 65)] [:value (b 65) (b 9)]
                                                   [:mod-revision (b 65) 513] [:create-revision (b 65) 3]]
                                            :then [[:put (b) (b)] [:delete (b 66)]]})))))

(deftest a-transaction-that-is-none-is-refused
  (doseq [txn [{:if [[:exist "k"]]} {:if [[:exists]]} {:if [[:exists "k" 1]]} {:if [[:mod-revision "k" -1]]} {:if [[:mod-revision "k" "1"]]}
               {:then [[:put "k"]]} {:then [[:delete "k" 1]]} {:then [:put "k" 1]} {:then "x"} {:when []} {:then [[:incr "k"]]}]]
    (is (= :raft/invalid (try (kv-op/command kv-op/typed txn) nil (catch ExceptionInfo e (:error (ex-data e))))) (pr-str txn)))
  (is (= :raft/unreadable (try (kv-op/command kv-op/typed {:then [[:put "k" inc]]}) (catch ExceptionInfo e (:error (ex-data e))))))
  (is (= :raft/invalid (try (kv-op/command kv-op/raw {:then [[:put "k" (b 1)]]}) (catch ExceptionInfo e (:error (ex-data e)))))))

(deftest outcomes-in-bytes
  (is (= {:succeeded? true, :revision 7, :results [{:existed? false} {:existed? true}]}
         (kv-op/outcome kv-op/raw (b 1 7 0 0 0 0 0 0 0 0xff 0xff 2 0 1 0 1 1))))
  (is (= {:succeeded? false, :revision 8, :failed-guard 1, :current nil, :results []}
         (kv-op/outcome kv-op/raw (b 0 8 0 0 0 0 0 0 0 1 0 0 0 0))))
  (is (= {:succeeded? false, :revision 8, :failed-guard 0, :results [],
          :current {:create-revision 2, :mod-revision 3, :value "v"}}
         (kv-op/outcome kv-op/typed (byte-array (concat (b 0 8 0 0 0 0 0 0 0 0 0, 1 2 0 0 0 0 0 0 0 3 0 0 0 0 0 0 0, 4 0 0 0)
                                                        (b 1) (.getBytes "\"v\"") (b 0 0)))))))

(deftest reads-in-bytes
  (is (= [2 1, 2 0 0 0 2 65] (numbers (kv-op/get-request kv-op/raw 2 (b 65)))))
  (is (= [0 2, 1 0 0 0 2, 1, 2 0 0 0 2 9, 10 0 0 0, 1]
         (numbers (kv-op/scan-request kv-op/raw 0 nil {:after (b 9), :limit 10, :keys-only? true}))))
  (is (= [1 3, 1 0 0 0 2] (numbers (kv-op/count-request kv-op/raw 1 (b)))))
  (is (nil? (kv-op/get-answer kv-op/raw (b 5 0 0 0 0 0 0 0 0))))
  (is (= 9 (kv-op/count-answer (b 5 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0))))
  (let [k  (kv-op/key-bytes kv-op/typed [:a 1])
        v  (kv-op/value-bytes kv-op/typed {:x 1})
        in (-> (wire/sink) (wire/u64! 5) (wire/u8! 1) (wire/u32! 1) (wire/blob! k) (wire/u64! 2) (wire/u64! 3) (wire/blob! v) wire/built)]
    (is (= {:revision 5, :more? true, :next [:a 1], :entries [{:key [:a 1], :value {:x 1}, :create-revision 2, :mod-revision 3}]}
           (kv-op/scan-answer kv-op/typed false in)))))

(defn- put-event ^bytes [revision]
  (-> (wire/sink) (wire/u8! 1) (wire/u64! revision) (wire/blob! (kv-op/key-bytes kv-op/typed "k")) (wire/u64! 1)
      (wire/blob! (kv-op/value-bytes kv-op/typed :v)) wire/built))

(deftest events-in-bytes
  (is (= {:type :put, :key "k", :value :v, :revision 9, :create-revision 1} (kv-op/event kv-op/typed (put-event 9))))
  (is (= {:type :compacted, :oldest 4} (kv-op/event kv-op/typed (b 3 4 0 0 0 0 0 0 0))))
  (is (= {:type :progress, :revision 4} (kv-op/event kv-op/typed (b 4 4 0 0 0 0 0 0 0)))))

(deftest a-watch-that-does-not-keep-up-is-told-what-it-missed
  (let [q     (kv-watches/queue)
        limit kv-watches/events-max]
    (is (true? (kv-watches/put! q (put-event 1))) "the first one wakes the reader")
    (doseq [n (range 2 (+ limit 11))]
      (is (not (kv-watches/put! q (put-event n)))))
    (let [taken (doall (take-while some? (repeatedly #(kv-watches/take! q))))]
      (is (= (range 1 (inc limit)) (map kv-op/revision-of (butlast taken))) "what was queued comes, in order")
      (is (= {:type :compacted, :oldest (+ limit 11)} (last taken)) "then the gap"))
    (is (true? (kv-watches/put! q (put-event 99999))) "and it goes on")
    (is (= 99999 (kv-op/revision-of (kv-watches/take! q))))))
