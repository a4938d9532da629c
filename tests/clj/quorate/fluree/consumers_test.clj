(ns quorate.fluree.consumers-test
  "fluree/raft's API used the ways that fluree/server and fluree/ledger use it."
  (:require [clojure.core.async :as async]
            [clojure.java.io :as io]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.fluree.group :as group]
            [quorate.raft :as raft]
            [quorate.raft.leader :as leader]
            [quorate.ring.json :as json])
  (:import (java.util.concurrent CountDownLatch TimeUnit)
           (java.util.concurrent.atomic AtomicLong)))

(set! *warn-on-reflection* true)

(defn- with-groups
  "Three groups on one network; calls `(f network directory groups)`, groups being an atom of a map by server."
  [more f]
  (clusters/with-directory
   (fn [directory]
     (let [network (group/network)
           servers ["ABC" "DEF" "GHI"]
           groups  (atom {})]
       (try
         (doseq [server servers]
           (swap! groups assoc server (group/start network (io/file directory server) server servers more)))
         (is (every? #(group/leader % 30000) (vals @groups)))
         (f network directory groups)
         (finally (run! group/stop! (vals @groups))))))))

(defn- leading [groups]
  (eventually #(some (fn [g] (when (leader/is-leader? (raft/raft-state (:raft g))) g)) (vals @groups))))

(deftest entries-are-forwarded-by-register-callback-and-new-command
  (with-groups {}
    (fn [_ _ groups]
      (doseq [[server g] @groups]
        (is (true? (group/call! g [:write server 1])) "from the leader, and from followers by their own carrier")
        (is (= 1 (group/call! g [:read server])))
        (is (nil? (group/call! g [:read :nothing])) "nil is a value")
        (is (= {:error "State machine error: as asked"} (group/call! g [:fail]))))
      (is (eventually #(apply = {"ABC" 1, "DEF" 1, "GHI" 1} (map (comp deref :state-atom) (vals @groups))))))))

(deftest a-stub-with-only-a-command-channel-takes-entries
  (with-groups {}
    (fn [_ _ groups]
      (let [{:keys [command-chan]} (leading groups)
            answers (vec (repeatedly 100 promise))]
        (doseq [[i answer] (map-indexed vector answers)]
          (is (true? (raft/new-entry {:config {:command-chan command-chan}} [:write i (* i i)] #(deliver answer %) 5000))))
        (is (every? true? (map #(deref % 10000 ::never) answers)))
        (is (= 81 (group/call! (leading groups) [:read 9])))))))

(def ^:private served
  "What fluree/ledger serves of the raft state over HTTP."
  [:snapshot-term :latest-index :snapshot-index :other-servers :index :snapshot-pending :term :leader :timeout-at :this-server
   :status :id :commit :servers :voted-for :timeout-ms])

(deftest the-state-is-served-as-json
  (with-groups {}
    (fn [_ _ groups]
      (is (true? (group/call! (leading groups) [:write :k :v])))
      (doseq [g (vals @groups)]
        (let [answer (promise)]
          (raft/get-raft-state (:raft g) #(deliver answer %))
          (let [state (deref answer 5000 nil)
                text  (json/write (select-keys state served))]
            (is (= (set served) (set (keys (select-keys state served)))) "each key is there")
            (is (re-find #"\"status\":\"(leader|follower)\"" text) text)
            (is (re-find #"\"leader\":\"(ABC|DEF|GHI)\"" text) text)
            (is (re-find #"\"servers\":\{\"(ABC|DEF|GHI)\":\{" text) text)
            (is (= #{"ABC" "DEF" "GHI"} (set (keys (:servers state)))))
            (let [[term mine?] (get-in state [:servers (:this-server g) :vote])]
              (is (pos-int? term))
              (is (= mine? (= (:this-server g) (:voted-for state)))))))))))

(deftest the-monitor-s-log-goes-to-a-websocket
  (with-groups {}
    (fn [_ _ groups]
      (let [g    (leading groups)
            sent (atom [])]
        (raft/monitor-raft (:raft g) (fn [{:keys [time event instant]}]
                                       (let [[op data] event]
                                         (swap! sent conj (pr-str [op time instant (:entry data)])))))
        (is (true? (group/call! g [:write :seen 1])))
        (is (eventually #(some (fn [line] (re-find #"\[:new-command \"[0-9.]+ms\" \d+ \[:write :seen 1\]\]" line)) @sent)) (pr-str @sent))
        (raft/monitor-raft (:raft g) nil)
        (is (true? (group/call! g [:write :unseen 1])))
        (is (not-any? #(re-find #":unseen" %) @sent))))))

(deftest a-watch-for-becoming-the-leader-runs-once-it-is
  (with-groups {}
    (fn [_ _ groups]
      (let [old   (leading groups)
            calls (atom [])]
        (doseq [g (vals @groups)]
          (raft/add-leader-watch (:raft g) ::upgrade
                                 (fn [{:keys [server event old-raft-state new-raft-state]}]
                                   (swap! calls conj [server event (:leader old-raft-state) (:leader new-raft-state)]))
                                 :become-leader))
        (swap! groups dissoc (:this-server old))
        (group/stop! old)
        (let [new (leading groups)]
          (is (eventually #(= [[(:this-server new) :become-leader]] (map (partial take 2) @calls))) (pr-str @calls))
          (is (= (:this-server new) (last (first @calls))) "the new state is the one after"))))))

(deftest a-fourth-server-comes-and-one-goes-over-the-users-own-connections
  (with-groups {}
    (fn [network directory groups]
      (dotimes [i 250]
        (is (true? (group/call! (leading groups) [:write i i]))))
      (swap! groups assoc "JKL" (group/start network (io/file directory "JKL") "JKL" ["ABC" "DEF" "GHI" "JKL"] {:join? true}))
      (let [answer (group/change-server! (leading groups) :add-server "JKL")]
        (is (= {:op :add, :server "JKL"} (select-keys answer [:op :server])) (pr-str answer)))
      (is (eventually 30 #(= 250 (count @(:state-atom (@groups "JKL"))))) "its state came as a snapshot, then entries")
      (is (= 7 (group/call! (@groups "JKL") [:read 7])))
      (let [gone (first (remove #{"JKL" (:this-server (leading groups))} (keys @groups)))]
        (is (eventually 30 #(= :remove (:op (group/change-server! (leading groups) :remove-server gone))))
            "as soon as the change before is over: one at a time")
        (is (eventually #(= 3 (count (:members (raft/status (:raft (leading groups)))))))))
      (is (true? (group/call! (leading groups) [:write :after true]))))))

(deftest many-writers-see-their-writes-while-the-leader-is-killed-and-comes-back
  (with-groups {:snapshot-threshold 500}
    (fn [network directory groups]
      (let [writers 64, each 20
            acked   (AtomicLong.)
            done    (CountDownLatch. writers)
            write!  (fn [w i]
                      (loop [tries 30]
                        (let [g      (rand-nth (vals @groups))
                              answer (try (group/call! g [:write [w i] i]) (catch Exception e e))]
                          (cond
                            (true? answer) (.incrementAndGet acked)
                            (pos? tries)   (recur (dec tries))
                            :else          nil))))]
        (dotimes [w writers]
          (future
            (try (dotimes [i each] (write! w i))
                 (finally (.countDown done)))))
        (is (eventually #(< 200 (.get acked))))
        (let [old (leading groups), server (:this-server old)]
          (swap! groups dissoc server)
          (group/stop! old)
          (is (leading groups) "another leads")
          (swap! groups assoc server (group/start network (io/file directory server) server ["ABC" "DEF" "GHI"] {:snapshot-threshold 500})))
        (is (.await done 120 TimeUnit/SECONDS))
        (is (= (* writers each) (.get acked)))
        (let [expected (into {} (for [w (range writers), i (range each)] [[w i] i]))]
          (testing "the one that came back too"
            (doseq [g (vals @groups)]
              (is (eventually 30 #(= expected @(:state-atom g)))))))))))
