(ns quorate.cluster.durability-test
  "What one server keeps: over a stop, over kill -9, and when it becomes a cluster."
  (:require [clojure.test :refer [deftest is]]
            [quorate.cluster.http :as http]
            [quorate.cluster.nodes :as nodes]
            [quorate.cluster.process :as process]))

(set! *warn-on-reflection* true)

(deftest a-single-server-keeps-its-keys
  (nodes/with-folder
    (fn [folder]
      (let [ports    (process/free-ports 1)
            [server] (nodes/start (nodes/variables folder ports (first ports)))
            tag      (:etag (http/put server "/kept" "over a stop"))
            took-ms  (process/terminate server)]
        (is (some? tag))
        (is (and took-ms (< (long took-ms) 5000)) (str "SIGTERM took " took-ms " ms\n" (process/report server)))
        (let [again (nodes/restart server)]
          (is (= ["over a stop" tag] ((juxt :text :etag) (http/fetch again "/kept"))) "the revision is the same, too")
          (is (= 201 (:status (http/put again "/killed" "over kill -9"))))
          (process/kill-9 again)
          (let [once-more (nodes/restart again)]
            (is (= "over a stop" (:text (http/fetch once-more "/kept"))))
            (is (= "over kill -9" (:text (http/fetch once-more "/killed"))))))))))

(deftest a-single-server-gives-its-data-to-a-cluster
  (nodes/with-folder
    (fn [folder]
      (let [[first-port & _ :as ports] (process/free-ports 3)
            [single] (nodes/start (nodes/variables folder [first-port] first-port))]
        (doseq [n (range 20)]
          (is (= 201 (:status (http/put single (str "/early/" n) (str n))))))
        (is (process/terminate single))
        (let [servers (apply nodes/start (map #(nodes/variables folder ports %) ports))]
          (is (every? #(nodes/everywhere? servers (str "/early/" %) (str %)) (range 20)))
          (is (= 201 (:status (http/put (last servers) "/late" "v"))))
          (is (every? #(= "v" (:text (http/fetch % "/late"))) servers)))))))
