(ns quorate.fluree.transport-test
  "Clusters whose messages all go through the user's own `:send-rpc-fn` and `invoke-rpc`."
  (:require [clojure.java.io :as io]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.fluree.bus :as bus]
            [quorate.fluree.file-snapshots :as files]
            [quorate.impl.courier :as courier]
            [quorate.impl.runner :as runner]
            [quorate.raft :as raft])
  (:import (java.nio ByteBuffer)
           (java.util.concurrent CountDownLatch TimeUnit)
           (java.util.concurrent.atomic AtomicLong)))

(set! *warn-on-reflection* true)

(defn- sets!
  "Patient: a cluster in the middle of an election may take some time."
  [node from to]
  (files/sets! node from to 20000))

(defn- user-of [directory server]
  (files/user (io/file directory (name server) "snapshots") {:parts 4}))

(defn- start!
  "Starts `server` with the functions of `user`, and puts it on the bus."
  [{:keys [nodes]} directory servers server user more]
  (let [node (raft/start (merge {:this-server server, :servers servers, :log-directory (io/file directory (name server) "raft")
                                 :log-level :error, :snapshot-threshold 40, :log-keep-entries 5, :timeout-ms 1000, :heartbeat-ms 150}
                                (:fns user)
                                more))]
    (swap! nodes assoc server node)
    node))

(defn- stop! [{:keys [nodes]} server]
  (let [node (get @nodes server)]
    (swap! nodes dissoc server)
    (raft/close node)))

(defn- with-cluster
  "Calls `(f start-server)` with a cluster of `servers` on `bus`; `(more-of server)` is added to a configuration, and `users` an
  atom: user by server."
  [bus servers users more-of f]
  (clusters/with-directory
   (fn [directory]
     (let [go! (fn [server]
                 (let [user (user-of directory server)]
                   (swap! users assoc server user)
                   (start! bus directory servers server user (more-of server))))]
       (try
         (run! go! servers)
         (is (eventually 60 #(clusters/formed? (vals @(:nodes bus)))) (pr-str (map raft/status (vals @(:nodes bus)))))
         (f go!)
         (finally
           (run! raft/close (vals @(:nodes bus)))
           (bus/stop! bus)))))))

(defn- leader-of [{:keys [nodes cut]}]
  (eventually 60 (fn [] (first (keep (fn [[server node]]
                                       (when (and (not (@cut server)) (raft/leader? node)) server))
                                     @nodes)))))

(defn- all-have? [users n]
  (every? #(= (files/kept n) @(:state %)) (vals @users)))

(deftest five-nodes-over-a-transport-that-loses-doubles-delays-and-throws
  (let [servers ["n1" "n2" "n3" "n4" "n5"]
        bus     (bus/bus 20260101 {:lost 0.03, :doubled 0.03, :throws 0.005, :delay-ms 6})
        nodes   (:nodes bus)
        users   (atom {})
        node    #(get @nodes %)
        other   (fn [& not-these] (first (remove (set not-these) servers)))]
    (with-cluster
     bus servers users (fn [_] {:send-rpc-fn (bus/source-style bus)})
     (fn [start-server!]
       (testing "writes go through on every node"
         (doseq [[i server] (map-indexed vector servers)]
           (sets! (node server) (* 6 i) (* 6 (inc i))))
         (is (eventually #(all-have? users 30))))
       (testing "a node that was cut off catches up by a user's snapshot of several parts"
         (let [leader (leader-of bus)
               away   (other leader)]
           (reset! (:cut bus) #{away})
           (sets! (node leader) 30 250)
           ;; On every node beyond what that one has, whoever leads when it returns: the log alone cannot help it.
           (let [has     (:last-log-index (raft/status (node away)))
                 beyond? (fn [server]
                           (some-> (:purged-log-index (raft/status (node server))) (> (+ 10 (long has)))))]
             (is (eventually 60 #(every? beyond? (remove #{away} servers)))))
           ;; Nor may a connection that was only interrupted bring what was under way on it.
           (stop! bus away)
           (start-server! away)
           (reset! (:cut bus) #{})
           (is (eventually 60 #(all-have? users 250)))
           (let [parts (map first (files/calls (get @users away) :install))]
             (is (= [1 2 3 4] (map :snapshot-part (take-last 4 parts))))
             (is (every? #{4} (map :snapshot-parts parts))))))
       (testing "the leader is killed, and comes back"
         (let [leader (leader-of bus)]
           (stop! bus leader)
           (sets! (node (other leader)) 250 300)
           (is (not= leader (leader-of bus)))
           (start-server! leader)
           (is (eventually 60 #(all-have? users 300)))))
       (is (every? #(nat-int? (:messages-dropped (raft/status %))) (vals @nodes)))
       (testing "every fault came up"
         (is (every? #(pos? (long (get @(:counts bus) % 0))) [:lost :doubled :throws :delivered]) (pr-str @(:counts bus))))))))

(deftest three-nodes-in-the-readme-s-convention-with-keywords-for-names
  (let [servers [:s1 :s2 :s3]
        bus     (bus/bus 7 nil)
        users   (atom {})
        seen    (atom #{})]
    (with-cluster
     bus servers users
     (fn [server]
       (let [carry (bus/readme-style bus server)]
         {:send-rpc-fn (fn [to message callback]
                         (swap! seen conj [to (first message)])
                         (is (some? callback))
                         (carry to message callback))}))
     (fn [_]
       (sets! (get @(:nodes bus) :s1) 0 60)
       (is (eventually #(all-have? users 60)))
       (is (= #{:quorate/message} (set (map second @seen))))
       (is (= (set servers) (set (map first @seen))) "servers have the names that the user gave them")))))

(deftest what-is-no-message-is-refused-and-harms-nobody
  (let [servers ["a" "b" "c"]
        bus     (bus/bus 3 nil)
        users   (atom {})
        answer  (fn [data]
                  (let [got (promise)]
                    (is (true? (raft/invoke-rpc (get @(:nodes bus) "a") :quorate/message data #(deliver got %))))
                    (deref got 5000 ::never)))]
    (with-cluster
     bus servers users (fn [_] {:send-rpc-fn (bus/source-style bus)})
     (fn [_]
       (doseq [rubbish [nil "text" {:a 1} [1 :b] [1000] [1.5] (byte-array 0) (byte-array [1 2 3]) (ByteBuffer/allocate 64) (vec (range 100))]]
         (is (= :raft/invalid (:error (ex-data (answer rubbish)))) (pr-str rubbish)))
       (dotimes [_ 100]
         (raft/invoke-rpc (get @(:nodes bus) "a") :quorate/message (byte-array (repeatedly 60 #(unchecked-byte (rand-int 256)))) nil))
       (sets! (get @(:nodes bus) "b") 0 20)
       (is (eventually #(all-have? users 20)))))))

;; ---------------------------------------------------------------------------------------------- the courier alone

(defn- courier [config]
  (courier/courier {:config (merge {:transport :user} config), :name "me", :servers {"a" :a}} (constantly {:this-server "me"})))

(deftest a-server-whose-call-blocks-holds-up-nobody-else
  (let [release (CountDownLatch. 1)
        arrived (atom [])
        c       (courier {:send-rpc-fn (fn [rs server op data cb]
                                         (when (= "slow" server) (.await release))
                                         (swap! arrived conj [(:this-server rs) server op (vec data) (cb 1) (cb nil) (cb) (cb 1 2)]))})]
    (try
      (dotimes [_ (+ 10 (long courier/messages-max))]
        (courier/send! c "slow" (byte-array [1])))
      (is (<= 9 (courier/dropped c) 10) "beyond the bound they are dropped, and counted")
      (courier/send! c "a" (byte-array [2]))
      (is (eventually 5 #(= [["me" :a :quorate/message [2] nil nil nil nil]] @arrived)) "the user's own name for the server; cb takes anything")
      (let [before (courier/dropped c)]
        (courier/send! c "a" (byte-array (inc (long courier/bytes-max))))
        (is (= (inc before) (courier/dropped c)) "and so by their size"))
      (finally
        (courier/stop! c 0)
        (.countDown release)))
    (is (nil? (courier/courier {:config {:transport :native}} nil)) "the native transport has none")))

(deftest what-a-send-rpc-fn-throws-is-reported-now-and-then-and-harms-nothing
  (let [errors (atom [])
        calls  (AtomicLong.)
        c      (courier {:send-rpc-fn (fn [_server [_op _data] _cb]
                                        (.incrementAndGet calls)
                                        (throw (StackOverflowError. "deep")))
                         :error-fn    #(swap! errors conj (:where %))})]
    (try
      (dotimes [_ 50] (courier/send! c "a" (byte-array 1)))
      (is (eventually 5 #(= 50 (.get calls))) "it is called again and again")
      (is (= [:send-rpc-fn] @errors) "and reported once in a second")
      (finally (courier/stop! c 1000)))))

(deftest a-stopped-courier-calls-nobody
  (let [started (CountDownLatch. 1)
        release (CountDownLatch. 1)
        calls   (AtomicLong.)
        c       (courier {:send-rpc-fn (fn [_ _ _] (.incrementAndGet calls) (.countDown started) (.await release))})]
    (dotimes [_ 5] (courier/send! c "a" (byte-array 1)))
    (is (.await started 5 TimeUnit/SECONDS))
    (courier/stop! c 0)
    (.countDown release)
    (courier/stop! c 5000)
    (courier/send! c "a" (byte-array 1))
    (is (= 1 (.get calls)) "what waited is not sent any more")))
