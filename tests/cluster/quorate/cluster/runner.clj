(ns quorate.cluster.runner
  "Runs the tests with real processes; the last line is `N passed, N failed`, counted in tests."
  (:require [clojure.test :as test]
            [quorate.cluster.durability-test]
            [quorate.cluster.load-test]
            [quorate.cluster.process :as process]
            [quorate.cluster.refusal-test]
            [quorate.cluster.slow-test]
            [quorate.cluster.table-test]
            [quorate.cluster.three-test]))

(set! *warn-on-reflection* true)

(def ^:private suites
  '[quorate.cluster.table-test quorate.cluster.refusal-test quorate.cluster.slow-test quorate.cluster.durability-test quorate.cluster.three-test
    quorate.cluster.load-test])

(def ^:private totals (atom {:ran 0, :failed #{}}))

(defn- note-failure []
  (swap! totals update :failed conj (or (first test/*testing-vars*) (gensym "fixture"))))

(defn- observed
  "clojure.test's reports, with each test announced and the failed ones noted."
  [report]
  (fn [{:keys [type] :as event}]
    (case type
      :begin-test-var (do (swap! totals update :ran inc)
                          (println " " (:name (meta (:var event)))))
      (:fail :error)  (note-failure)
      nil)
    (report event)))

(defn -main
  "Runs the suites named in `names`, or all."
  [& names]
  (.addShutdownHook (Runtime/getRuntime) (Thread. ^Runnable process/kill-all))
  (with-redefs [test/report (observed test/report)]
    (apply test/run-tests (or (seq (map symbol names)) suites)))
  (let [{:keys [ran failed]} @totals
        failures (count failed)]
    (println (str (max 0 (- (long ran) failures)) " passed, " failures " failed"))
    (shutdown-agents)
    (System/exit (if (and (pos? (long ran)) (zero? failures)) 0 1))))
