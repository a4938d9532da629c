(ns quorate.runner-test
  "The thread that callbacks run on."
  (:require [clojure.test :refer [deftest is]]
            [quorate.impl.runner :as runner])
  (:import (java.util.concurrent CountDownLatch TimeUnit)
           (java.util.concurrent.atomic AtomicLong)))

(set! *warn-on-reflection* true)

(defn- race!
  "Offers tasks from two threads while the runner is stopped. Returns how many were taken, and how many ran."
  []
  (let [r       (runner/runner "runner-test" 100000)
        ran     (AtomicLong.), taken (AtomicLong.)
        started (CountDownLatch. 2)
        offers  (doall (repeatedly 2 (fn []
                                       (future
                                         (.countDown started)
                                         (while (when (runner/offer! r (fn [] (.incrementAndGet ran)))
                                                  (.incrementAndGet taken)))))))]
    (.await started 10 TimeUnit/SECONDS)
    (runner/stop! r 10000)
    (run! #(deref % 10000 nil) offers)
    [(.get taken) (.get ran)]))

(deftest what-is-taken-runs-even-while-the-runner-is-stopped
  (dotimes [_ 2000]
    (let [[taken ran] (race!)]
      (is (= taken ran)))))
