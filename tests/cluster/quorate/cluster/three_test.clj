(ns quorate.cluster.three-test
  "Three servers: reading your writes anywhere, losing one, losing two, coming back, coming back with nothing."
  (:require [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [quorate.cluster.http :as http]
            [quorate.cluster.nodes :as nodes]
            [quorate.cluster.process :as process]))

(set! *warn-on-reflection* true)

(def ^:private command-timeout-ms 4000)

(defn- with-three
  "Calls `(f servers folder)` with three servers that have a quorum."
  [f]
  (nodes/with-folder
    (fn [folder]
      (let [ports (process/free-ports 3)]
        (f (apply nodes/start (map #(nodes/variables folder ports %) ports)) folder)))))

(defn- write-until
  "Writes /w/PREFIX-0, -1, ... through the servers in turn until `stop?`; returns the numbers that were acknowledged."
  [servers prefix stop?]
  (loop [n 0, acknowledged []]
    (if @stop?
      acknowledged
      (let [server (nth servers (mod n (count servers)))]
        (recur (inc n)
               (cond-> acknowledged
                 (= 201 (:status (http/put server (str "/w/" prefix "-" n) (str n)))) (conj n)))))))

(defn- missing
  "Those of the acknowledged writes that the server has not."
  [server prefix acknowledged]
  (remove #(= (str %) (:text (http/fetch server (str "/w/" prefix "-" %)))) acknowledged))

(defn- lost-majority [survivor]
  (testing "without a majority nothing is promised"
    (doseq [answer [(http/put survivor "/refused" "v") (http/fetch survivor "/mykey") (http/delete survivor "/mykey")
                    (http/fetch survivor "/_health")]]
      (is (= 503 (:status answer)))
      (is (some? (:retry-after answer)))
      (is (str/ends-with? (str (:text answer)) ".\n"))
      (is (< (long (:ms answer 99999)) (+ (long command-timeout-ms) 1500))))
    (is (= "mydata" (:text (http/local survivor "/mykey"))) "a local read still tells what it knows")
    (is (= 200 (:status (http/fetch survivor "/_cluster"))))
    (is (= 2 (count (re-seq #"\"reachable\":false" (:text (http/fetch survivor "/_cluster"))))))))

(deftest the-story-of-three-terminals
  (with-three
    (fn [[a b c :as servers] _folder]
      (testing "write on one, read on all"
        (is (= 201 (:status (http/put b "/mykey" "mydata"))))
        (doseq [server servers]
          (is (= "mydata" (:text (http/fetch server "/mykey")))))
        (doseq [[n server] (map-indexed vector servers)]
          (is (= 201 (:status (http/put server "/turn" (str n)))))
          (is (= (repeat 3 (str n)) (map #(:text (http/fetch % "/turn")) servers))))
        (is (= 3 (count (re-seq #"\"reachable\":true" (:text (http/fetch a "/_cluster")))))))
      (testing "one is killed: the consensus stays"
        (process/kill-9 c)
        (is (process/eventually 20 #(= 201 (:status (http/put a "/without-c" "1")))))
        (is (= "1" (:text (http/fetch b "/without-c")))))
      (process/kill-9 b)
      (lost-majority a)
      (testing "both return and catch up"
        (let [[b c] (nodes/wait-ready [(process/launch (:variables b)) (process/launch (:variables c))])]
          (is (nodes/everywhere? [a b c] "/without-c" "1"))
          (is (= "mydata" (:text (http/fetch c "/mykey"))))
          (is (= 201 (:status (http/put c "/after" "2"))))
          (is (nodes/everywhere? [a b c] "/after" "2")))))))

(deftest the-leader-is-killed-under-writes
  (with-three
    (fn [servers _folder]
      (let [stop?     (atom false)
            leader    (let [port (nodes/leader-port (first servers))] (first (filter #(= port (:port %)) servers)))
            survivors (vec (remove #{leader} servers))
            writers   (mapv #(future (write-until survivors % stop?)) ["x" "y"])]
        (is (some? leader))
        (Thread/sleep 1500)
        (process/kill-9 leader)
        (Thread/sleep 4000)
        (reset! stop? true)
        (let [acknowledged (zipmap ["x" "y"] (map deref writers))
              restarted    (nodes/restart leader)]
          (doseq [[prefix numbers] acknowledged]
            (is (< 20 (count numbers)) "there were writes")
            (is (< 5 (- (long (peek numbers)) (long (nth numbers (quot (count numbers) 2))))) "and they went on")
            (doseq [server (conj survivors restarted)]
              (is (empty? (missing server prefix numbers)) (str "lost on " (:port server))))))))))

(deftest a-wiped-server-joins-again
  (with-three
    (fn [[a b c] folder]
      (doseq [n (range 50)]
        (http/put a (str "/k" n) (str n)))
      (process/kill-9 c)
      (process/delete-folder (get (:variables c) "DATA_DIR"))
      (is (= 201 (:status (http/put b "/meanwhile" "v"))))
      (doseq [join ["true" "false"]]
        (let [back (nodes/restart c "JOIN" join)]
          (is (nodes/everywhere? [back] "/meanwhile" "v"))
          (is (every? #(nodes/everywhere? [back] (str "/k" %) (str %)) (range 50)))
          (is (= 201 (:status (http/put back (str "/again-" join) "v"))))
          (is (= "v" (:text (http/fetch a (str "/again-" join)))))
          (process/kill-9 back)
          (process/delete-folder (str folder "/" (:port c)))))
      (is (process/eventually 20 #(= 201 (:status (http/put a "/two-are-enough" "v")))) "it never became a fourth vote")
      (is (= "v" (:text (http/fetch b "/two-are-enough")))))))

(deftest one-of-many-creates-a-key
  (with-three
    (fn [servers _folder]
      (doseq [round (range 5)]
        (let [answers (->> (range 9)
                           (mapv #(future (:status (http/put (nth servers (mod (long %) 3)) (str "/lock/" round) (str %)
                                                             :headers {"If-None-Match" "*"}))))
                           (mapv deref)
                           frequencies)]
          (is (= {201 1, 412 8} answers)))))))
