(ns quorate.pending-test
  "Who waits for which ticket: everyone is found once, whatever comes first."
  (:require [clojure.test :refer [deftest is]]
            [quorate.impl.pending :as pending])
  (:import (java.util.concurrent LinkedBlockingQueue TimeUnit)
           (java.util.concurrent.atomic AtomicLong)))

(set! *warn-on-reflection* true)

(def ^:private round-the-ring "From one ticket to the next with the same place." 8192)

(deftest tickets-that-share-a-place-do-not-meet
  (let [p       (pending/pending)
        tickets [1 (inc round-the-ring) (inc (* 2 round-the-ring)) (bit-or 1 (bit-shift-left 1 62)) 2]]
    (doseq [t tickets]
      (is (= t (pending/register! p (constantly t) (str "waits for " t)))))
    (is (= 5 (pending/waiting p)))
    (is (nil? (pending/take! p 3)))
    (is (nil? (pending/take! p (+ 2 (long round-the-ring)))) "the place is taken, by another")
    (doseq [t (shuffle (butlast tickets))]
      (is (= (str "waits for " t) (pending/take! p t)))
      (is (nil? (pending/take! p t)) "once"))
    (pending/register! p (constantly (inc round-the-ring)) "late")
    (is (nil? (pending/take! p 1)) "an answer that comes again finds nobody, not who has its place now")
    (is (= [[2 "waits for 2"] [(inc round-the-ring) "late"]] (pending/take-all! p)))
    (is (empty? (pending/take-all! p)))))

(deftest what-is-refused-waits-for-nothing
  (let [p (pending/pending)]
    (is (thrown? IllegalStateException (pending/register! p #(throw (IllegalStateException.)) "nobody")))
    (is (zero? (pending/waiting p)))
    (is (empty? (pending/take-all! p)))))

(deftest an-answer-that-is-faster-than-its-submission-finds-who-waits
  (let [p         (pending/pending)
        numbers   (AtomicLong.)
        accepted  (LinkedBlockingQueue.)
        each      30000
        ;; The answer's thread knows the ticket before the submitter's has registered.
        submit    (fn [] (let [t (.incrementAndGet numbers)] (.put accepted t) t))
        answering (future
                    (loop [found 0]
                      (if-let [t (.poll accepted 2 TimeUnit/SECONDS)]
                        (do (is (= t @(pending/take! p t)))
                            (pending/settled! p 1)
                            (recur (inc found)))
                        found)))
        submitting (doall (repeatedly 3 (fn []
                                          (future
                                            (dotimes [_ each]
                                              (while (> (pending/waiting p) 20000) (Thread/yield))
                                              (let [ticket (promise)]
                                                (deliver ticket (pending/register! p submit ticket))))))))]
    (run! deref submitting)
    (is (= (* 3 each) (deref answering 60000 :hung)))
    (is (zero? (pending/waiting p)))))
