(ns quorate.snapshot-files-test
  "What users' snapshots leave on the disk."
  (:require [clojure.java.io :as io]
            [clojure.test :refer [deftest is]]
            [quorate.clusters :as clusters]
            [quorate.impl.codec :as codec]
            [quorate.impl.snapshot-files :as files])
  (:import (clojure.lang ExceptionInfo)
           (java.io File)))

(set! *warn-on-reflection* true)

(deftest the-record-names-the-newest-whole-snapshots-and-forgets
  (clusters/with-directory
   (fn [directory]
     (let [directory (io/file directory "user-snapshots")
           indexes   #(map :index (files/complete directory))]
       (is (= [] (files/complete directory)))
       (files/forget-complete! directory 1)
       (is (not (.exists directory)) "nothing to forget makes nothing")
       (doseq [i [5 3 9 3]] (files/note-complete! directory i 2))
       (is (= [{:index 3, :term 2} {:index 5, :term 2} {:index 9, :term 2}] (files/complete directory)))
       (files/forget-complete! directory 5)
       (is (= [3 9] (indexes)))
       (doseq [i (range 10 30)] (files/note-complete! directory i 2))
       (is (= (range 22 30) (indexes)))
       (spit (io/file directory "complete") "\u0001[{:ind")
       (is (= [] (files/complete directory)) "a broken one counts as empty")
       (files/note-complete! directory 40 3)
       (is (= [40] (indexes)))))))

(deftest a-marker-is-told-from-anything-else
  (clusters/with-directory
   (fn [directory]
     (let [path  (io/file directory "m")
           error #(try (files/read-marker path) nil (catch ExceptionInfo e (ex-message e)))]
       (files/write-marker! {:kind :readme, :index 7, :term 2, :server "s", :state {:a [1]}} path)
       (is (= {:kind :readme, :index 7, :term 2, :server "s", :state {:a [1]}} (dissoc (files/read-marker path) :quorate/snapshot)))
       (codec/write-file! {:a 1} path)
       (is (re-find #":reducer" (error)))
       (codec/write-file! {:quorate/snapshot 99} path)
       (is (re-find #"format 99" (error)))))))

(deftest only-old-files-of-our-own-are-deleted
  (clusters/with-directory
   (fn [directory]
     (doseq [i [1 2 10 9 30]] (spit (files/state-file directory i) "x"))
     (spit (io/file directory "mine.snapshot") "x")
     (spit (io/file directory "complete") "x")
     (files/trim! directory)
     (is (= #{"9.snapshot" "10.snapshot" "30.snapshot" "mine.snapshot" "complete"}
            (set (map #(.getName ^File %) (.listFiles ^File directory))))))))
