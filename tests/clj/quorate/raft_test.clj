(ns quorate.raft-test
  "quorate.raft with the real engine: entries, state machines, restart, watches, members."
  (:require [clojure.java.io :as io]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.raft :as raft])
  (:import (clojure.lang ExceptionInfo)
           (java.util.concurrent CountDownLatch TimeUnit)))

(set! *warn-on-reflection* true)

(defn- counting
  "A reducer over a vector of entries; `[:boom ...]` throws, `:rubbish` returns no pair."
  [state entry _ctx]
  (cond
    (= :rubbish entry)                            :no-pair
    (and (vector? entry) (= :boom (first entry))) (throw (ex-info "boom" {}))
    :else                                         [(conj state entry) (count state)]))

(defn- single-config [directory more]
  (merge {:this-server "s", :servers ["s"], :log-directory directory, :log-level :error, :reducer counting, :initial-state []} more))

(defn- entry!
  "Sends `entry` and waits for what the callback gets."
  ([node entry] (entry! node entry 8000))
  ([node entry timeout-ms]
   (let [got (promise)]
     (raft/new-entry node entry #(deliver got %) timeout-ms)
     (deref got (+ timeout-ms 3000) ::never))))

(defn- ready! [node]
  (is (eventually #(raft/leader? node)))
  node)

(defmacro ^:private with-single [[sym directory more] & body]
  `(let [~sym (ready! (raft/start (single-config ~directory ~more)))]
     (try ~@body (finally (raft/close ~sym)))))

(defmacro ^:private error-of [& body]
  `(try ~@body nil (catch ExceptionInfo e# (:error (ex-data e#)))))

(deftest a-single-node-applies-answers-and-remembers
  (clusters/with-directory
   (fn [directory]
     (let [values [{:a 1} nil false "text" 1/2 #inst "2024-01-01" #{1 [2]} :k]]
       (with-single [node directory {}]
         (is (= (range (count values)) (map #(entry! node %) values)) "the callback gets the reducer's result")
         (is (= values (raft/state node)))
         (is (= (count values) (:index (raft/status node)) (raft/sync node))))
       (testing "after a restart"
         (with-single [node directory {}]
           (is (= (count values) (raft/sync node)))
           (is (= values (raft/state node)))
           (is (= (count values) (entry! node :more)))))))))

(deftest start-returns-a-map-and-printing-says-something
  (clusters/with-directory
   (fn [directory]
     (with-single [node directory {:app/own 1}]
       (is (= ["s" [] 1] [(:this-server node) (:other-servers node) (:app/own (:config node))]))
       (is (every? #(contains? node %) [:id :config :status :leader :term :index :commit :latest-index :snapshot-index :voted-for :servers]))
       (is (= :ok (do (entry! node 1) :ok)))
       (is (re-matches #"#<quorate.raft/Node s leader, term \d+, leader s, index 1>" (pr-str node)))
       (let [state (promise)]
         (is (true? (raft/get-raft-state node #(deliver state %))))
         (is (= [:leader "s" 1] ((juxt :status :leader :index) (deref state 1000 nil))))
         (is (true? (raft/leader? @state)) "leader? takes a raft state, too"))))))

(deftest what-a-reducer-does-wrong-is-the-entry-s-own-affair
  (clusters/with-directory
   (fn [directory]
     (with-single [node directory {}]
       (is (= [0 :raft/state-machine :raft/state-machine 1]
              (map #(let [r (entry! node %)] (:error (ex-data r) r)) [:a [:boom 1] :rubbish :b])))
       (is (= [:a :b] (raft/state node)))))))

(deftest fluree-s-state-machine-works-and-its-errors-are-maps
  (clusters/with-directory
   (fn [directory]
     (let [seen (atom [])
           node (ready! (raft/start {:this-server "s", :servers ["s"], :log-directory directory, :log-level :error
                                     :state-machine (fn [entry raft-state]
                                                      (swap! seen conj (select-keys raft-state [:this-server :index]))
                                                      (case entry :nil nil, :false false, :bad (throw (Exception. "bad")), [:got entry]))}))]
       (try
         (is (= [[:got 1] nil false {:error "State machine error: bad"}] (map #(entry! node %) [1 :nil :false :bad])))
         (is (= (map #(hash-map :this-server "s" :index %) [1 2 3 4]) @seen))
         (is (instance? ExceptionInfo (try @(raft/snapshot! node) (catch Exception e e))) "it has no snapshots, and says so")
         (is (= :raft/invalid (error-of (raft/state node))))
         (finally (raft/close node)))))))

(deftest many-writers-get-each-its-own-result
  (clusters/with-directory
   (fn [directory]
     (with-single [node directory {:reducer (fn [n entry ctx] [(inc n) [entry (:index ctx)]]), :initial-state 0}]
       (let [writers 16, each 500
             latch   (CountDownLatch. (* writers each))
             results (atom #{})
             wrong   (atom [])]
         (run! deref
               (mapv (fn [w]
                       (future
                         (dotimes [i each]
                           (raft/new-entry node [w i] (fn [[entry index :as result]]
                                                        (if (= [w i] entry) (swap! results conj index) (swap! wrong conj result))
                                                        (.countDown latch))
                                           20000))))
                     (range writers)))
         (is (.await latch 30 TimeUnit/SECONDS))
         (is (= [] @wrong))
         (is (= (set (range 1 (inc (* writers each)))) @results) "the index counts entries, from 1")
         (is (= (* writers each) (raft/state node))))))))

(deftest snapshots-of-a-reducer-come-by-themselves-and-survive
  (clusters/with-directory
   (fn [directory]
     (let [config {:snapshot-threshold 50, :log-keep-entries 10}]
       (with-single [node directory config]
         (dotimes [i 299] (raft/new-entry node i nil))
         (is (= 299 (entry! node 299)))
         (is (= 300 (raft/sync node {:timeout-ms 10000})))
         (is (eventually #(pos? (:snapshot-index (raft/status node)))) "by the threshold")
         (is (= 300 @(raft/snapshot! node {:timeout-ms 10000})) "and when asked")
         (is (= 300 (entry! node :after))))
       (with-single [node directory config]
         (is (= 301 (raft/sync node)))
         (is (= (conj (vec (range 300)) :after) (raft/state node))))))))

(deftest a-state-that-cannot-be-written-fails-the-snapshot-and-nothing-else
  (clusters/with-directory
   (fn [directory]
     (with-single [node directory {:reducer (fn [_ _ _] [{:f inc} :ok])}]
       (is (= :ok (entry! node 1)))
       (let [failure (try @(raft/snapshot! node) (catch ExceptionInfo e e))]
         (is (re-find #"a function .* at \[:f\]" (str (ex-message failure) (:reason (ex-data failure))))))
       (is (= :ok (entry! node 2)))))))

(deftest the-outcome-of-an-entry-can-be-asked-for-by-its-id
  (clusters/with-directory
   (fn [directory]
     (with-single [node directory {:reducer (fn [s _ ctx] [s (:id ctx)])}]
       (let [id (entry! node 1)]
         (is (string? id))
         (is (= {:outcome :applied, :index 1} (eventually 5 #(let [o (raft/outcome node id)] (when (not= :pending (:outcome o)) o)))))
         (is (= :unknown (:outcome (raft/outcome node "ffff.1.1"))))
         (doseq [bad ["x" nil 7 "1.2" "zz.1.1" "1.1.99999999999999999999999"]]
           (is (= :raft/invalid (error-of (raft/outcome node bad))) (pr-str bad))))))))

(deftest a-wrong-start-is-one-sentence
  (clusters/with-directory
   (fn [directory]
     (with-single [_node directory {}]
       (is (= :raft/locked (error-of (raft/start (single-config directory {}))))))
     (let [[address] (clusters/free-addresses 1)]
       (with-single [_node directory {:servers {"s" address}}]
         (is (= :raft/address-in-use
                (error-of (raft/start (single-config (io/file directory "other") {:servers {"s" address}}))))))))))

;; ------------------------------------------------------------------------------------------------- three nodes

(defn- with-three [more f]
  (clusters/with-nodes ["a" "b" "c"]
    (fn [config] (raft/start (merge {:reducer counting, :initial-state []} config more)))
    raft/close
    f))

(deftest three-nodes-agree-whoever-is-asked
  (with-three {}
    (fn [nodes]
      (doseq [[i node] (map-indexed vector (concat (vals nodes) (vals nodes)))]
        (is (= i (entry! node [:entry i])) "a follower forwards to the leader; the result is its own"))
      (doseq [node (vals nodes)]
        (is (= 6 (raft/sync node)))
        (is (= (mapv #(vector :entry %) (range 6)) (raft/state node)))
        (is (= (mapv #(vector :entry %) (range 6)) (raft/state node {:consistency :linearizable}))))
      (is (= 1 (count (filter raft/leader? (vals nodes)))))
      (is (= 1 (count (distinct (map #(:leader (raft/status %)) (vals nodes)))))))))

;; What fails is told to whoever asked, and is the same on every replica.
(deftest what-fails-on-one-replica-fails-alike-on-all
  (with-three {}
    (fn [nodes]
      (doseq [node (vals nodes)]
        (is (= :raft/state-machine (:error (ex-data (entry! node [:boom 1])))))
        (is (= :raft/state-machine (:error (ex-data (entry! node :rubbish))))))
      (is (= 0 (entry! (first (vals nodes)) :good)))
      (doseq [node (vals nodes)]
        (is (= 7 (raft/sync node)) "a failed entry has its index")
        (is (= [:good] (raft/state node)))))))

(deftest one-node-may-go-two-may-not
  (with-three {}
    (fn [nodes]
      (is (= 0 (entry! (nodes "a") :one)))
      (let [leader    (first (filter raft/leader? (vals nodes)))
            standing  (remove #(= (:this-server leader) (:this-server %)) (vals nodes))
            events    (atom [])]
        (doseq [node standing]
          (raft/add-leader-watch node :test #(swap! events conj %)))
        (raft/close leader)
        (is (eventually #(= 1 (let [r (entry! (first standing) :two 2000)] (if (int? r) 1 nil)))))
        (is (eventually #(some (fn [e] (= :become-leader (:event e))) @events)))
        (is (every? #(= #{:key :event :cause :message :old-leader :new-leader :server :old-raft-state :new-raft-state}
                        (set (keys %)))
                    @events) "nine keys")
        (let [{:keys [server new-leader new-raft-state]} (first (filter #(= :become-leader (:event %)) @events))]
          (is (= server new-leader (:leader new-raft-state)))
          (is (= :leader (:status new-raft-state))))
        (raft/close (first standing))
        (let [started (System/nanoTime)
              result  (entry! (second standing) :three 1500)]
          (is (contains? #{:raft/unavailable :raft/command-timeout} (:error (ex-data result))))
          (is (< (quot (- (System/nanoTime) started) 1000000) 3500) "within the timeout"))))))

(deftest without-forwarding-a-follower-says-who-does-not-lead
  (with-three {:forward? false}
    (fn [nodes]
      (let [follower (first (remove raft/leader? (vals nodes)))
            result   (entry! follower 1)]
        (is (= [:raft/not-leader :new-command] ((juxt :error :operation) (ex-data result))))))))

(deftest leadership-moves-when-asked
  (with-three {}
    (fn [nodes]
      (is (= 0 (entry! (nodes "a") 1)))
      (let [follower (first (remove raft/leader? (vals nodes)))]
        (is (true? @(raft/transfer-leader! (nodes "a") (:this-server follower) {:timeout-ms 8000})))
        (is (eventually #(raft/leader? follower)))
        (is (= 1 (entry! (nodes "b") 2)))))))

(deftest a-fourth-server-joins-and-one-leaves
  (with-three {}
    (fn [nodes]
      (dotimes [i 20] (is (= i (entry! (nodes "a") i))))
      (clusters/with-directory
       (fn [directory]
         (let [[address] (clusters/free-addresses 1)
               known     (assoc (:servers (:config (nodes "a"))) "d" address)
               fourth    (raft/start {:this-server "d", :servers known, :log-directory directory, :join? true, :log-level :error
                                      :reducer counting, :initial-state []})]
           (try
             (let [added (try @(raft/add-server! (nodes "a") "d" address {:timeout-ms 15000}) (catch ExceptionInfo e e))]
               (is (or (true? added) (= :raft/membership (:error (ex-data added)))) "unless it had joined by itself"))
             (is (eventually #(= (vec (range 20)) (raft/state fourth))))
             (is (eventually #(= #{"a" "b" "c" "d"} (set (map :name (:members (raft/status (nodes "a"))))))))
             (is (true? @(raft/remove-server! (nodes "a") "d" {:timeout-ms 15000})))
             (is (eventually #(= #{"a" "b" "c"} (set (map :name (:members (raft/status (nodes "a"))))))))
             (is (= :raft/config (error-of (raft/add-server! (nodes "a") "x" "nowhere"))))
             (finally (raft/close fourth)))))))))
