(ns quorate.fluree.monitor-test
  "Leader watches and the monitor: what they get, in order, and that nobody is held up by them."
  (:require [clojure.core.async :as async]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :refer [eventually]]
            [quorate.fluree.nodes :as nodes :refer [config entry! error-of got in-directory ready! with-single with-three]]
            [quorate.impl.lanes :as lanes]
            [quorate.impl.runner :as runner]
            [quorate.raft :as raft]))

(set! *warn-on-reflection* true)

(def ^:private nine-keys
  #{:key :event :cause :message :old-leader :new-leader :server :old-raft-state :new-raft-state})

(def ^:private causes
  #{:append-entries :append-entries-response :install-snapshot-response :request-vote-response :request-votes
    :config-change-response :become-leader})

;; ------------------------------------------------------------------------------------------------------ watches

(defn- linked?
  "True when each event begins where the one before it ended."
  [events]
  (every? (fn [[a b]] (= (:new-leader a) (:old-leader b))) (partition 2 1 events)))

(defn- told
  "The leader whom `node` last told its watches of."
  [node]
  (:leader @(:leadership (:quorate.raft/runtime node))))

(deftest watches-see-a-change-of-leader-from-each-side
  (with-three {}
    (fn [nodes _]
      (let [a-leader (nodes/leader nodes)
            others   (nodes/followers nodes)
            seen     (into {} (map (juxt :this-server (fn [_] (atom [])))) (vals nodes))
            only     (atom [])]
        (is (eventually #(every? (fn [node] (= (:this-server a-leader) (told node))) (vals nodes))))
        (doseq [node (vals nodes)]
          (is (true? (raft/add-leader-watch node :all (fn [e] (swap! (seen (:this-server node)) conj e)))))
          (is (true? (raft/add-leader-watch node :mine (fn [e] (swap! only conj e)) :become-leader))))
        (Thread/sleep 300)
        (is (every? empty? (map deref (vals seen))) "nothing is invented for a leader who was known at registration")
        (raft/close a-leader)
        (let [next-leader (eventually #(first (filter raft/leader? others)))
              follower    (first (remove #(= next-leader %) others))
              won         (deref (seen (:this-server next-leader)))
              event-of    (fn [events] (first (filter #(= :become-leader (:event %)) events)))]
          (is (eventually #(some (fn [e] (= (:this-server next-leader) (:new-leader e))) @(seen (:this-server follower)))))
          (is (eventually #(event-of @(seen (:this-server next-leader)))))
          (doseq [[server events] (dissoc (update-vals seen deref) (:this-server a-leader)), e events]
            (is (= nine-keys (set (keys e))))
            (is (= [:all server] [(:key e) (:server e)]))
            (is (contains? causes (:cause e)))
            (is (string? (:message e)))
            (is (= (:new-leader e) (:leader (:new-raft-state e))) "the states are not swapped"))
          (is (every? linked? (map deref (vals (dissoc seen (:this-server a-leader))))) "in order, none lost")
          (let [first-event (first (if (seq won) won @(seen (:this-server next-leader))))]
            (is (= [:become-follower :request-votes (:this-server a-leader) nil]
                   ((juxt :event :cause :old-leader :new-leader) first-event))
                "who stands first says that there is no leader"))
          (let [e (event-of @(seen (:this-server next-leader)))]
            (is (= [(:this-server next-leader) :leader] [(:new-leader e) (:status (:new-raft-state e))]))
            (is (not= :leader (:status (:old-raft-state e)))))
          (let [e (last @(seen (:this-server follower)))]
            (is (= [:become-follower :append-entries (:this-server next-leader)] ((juxt :event :cause :new-leader) e))))
          (is (eventually #(some (fn [e] (= (:this-server next-leader) (:server e))) @only)))
          (is (= #{:become-leader} (set (map :event @only))) "a watch of one event gets that only"))))))

(deftest the-leader-change-fn-sees-the-very-first-leader
  (in-directory [directory]
    (let [seen (atom [])]
      (with-single [_node directory {:leader-change-fn #(swap! seen conj %)}]
        (is (eventually #(= [:become-leader "s" :fluree.raft/default] ((juxt :event :new-leader :key) (last @seen)))))))))

(defn- arrives!
  "As if the engine had said that the leader changed in `term`."
  [node term]
  (let [rt (:quorate.raft/runtime node)]
    ((:on-leader rt) (pr-str {:event :leader-change, :cause :append-entries, :old-leader "s", :new-leader "s", :server "s"
                              :term term, :role :follower}))))

(deftest a-slow-watch-harms-nobody
  (in-directory [directory]
    (with-single [node directory {}]
      (let [gate (promise)
            slow (atom []), quick (atom [])
            n    300]
        (raft/add-leader-watch node :slow (fn [e] @gate (swap! slow conj (:term (:new-raft-state e)))))
        (raft/add-leader-watch node :throws (fn [e] (when (zero? (long (:term (:new-raft-state e)))) (throw (StackOverflowError.)))))
        (raft/add-leader-watch node :quick (fn [e] (swap! quick conj (:term (:new-raft-state e)))))
        (dotimes [i n] (arrives! node i))
        (is (eventually #(= (range n) @quick)) "all, in order, while another one hangs and a third throws")
        (is (= 1 (do (entry! node [:write "k" 1]) (entry! node [:read "k"]))))
        (is (= [] @slow))
        (deliver gate true)
        (is (eventually #(= (range n) @slow)) "and the slow one gets all of its own")
        (is (= {:where :watch, :message "Error in :watch :throws: java.lang.StackOverflowError"}
               (dissoc (:last-error (raft/status node)) :at)))))))

(deftest keys-replace-and-removal-ends
  (in-directory [directory]
    (with-single [node directory {}]
      (let [seen (atom [])
            add! (fn [k tag] (raft/add-leader-watch node k (fn [_] (swap! seen conj tag))))]
        (add! :k :old)
        (add! :k :new)
        (arrives! node 1)
        (is (eventually #(= [:new] @seen)))
        (let [gate (promise)]
          (runner/offer! (:watches (:quorate.raft/runtime node)) #(deref gate))
          (arrives! node 2)
          (add! :later :later)
          (is (true? (raft/remove-leader-watch node :k)))
          (is (true? (raft/remove-leader-watch node :never-there)))
          (deliver gate true))
        (arrives! node 3)
        (is (eventually #(= [:new :later] @seen)) "what happened before a watch was added, or is told after it was removed, is not its affair")
        (Thread/sleep 100)
        (is (= [:new :later] @seen)))
      (is (= :raft/invalid (error-of (raft/add-leader-watch node :k (fn [_]) :become-king))))
      (is (= :raft/invalid (error-of (raft/add-leader-watch node :k "f")))))))

(deftest a-lane-is-in-order-and-bounded
  (let [pool (lanes/pool "test-lane"), a-lane (lanes/lane pool), gate (promise), seen (atom [])]
    (is (= :taken (lanes/offer! a-lane #(deref gate))))
    (is (eventually #(= :taken (lanes/offer! a-lane (fn [] (swap! seen conj :first))))))
    (is (= :full (last (take-while some? (map (fn [i] (lanes/offer! a-lane #(swap! seen conj i))) (range (* 2 lanes/lane-max)))))))
    (is (= :taken (lanes/offer! (lanes/lane pool) #(deliver gate true))) "another lane goes on, and lets this one go")
    (is (true? (lanes/stop! pool 5000)))
    (is (= :first (first @seen)))
    (is (apply < (rest @seen)))
    (is (= :ended (lanes/offer! a-lane (fn []))))))

;; ------------------------------------------------------------------------------------------------------ monitor

(defn- ops [events] (map (comp first :event) events))

(deftest the-monitor-sees-what-fluree-s-users-look-at
  (in-directory [directory]
    (with-single [node directory {}]
      (let [seen (atom [])]
        (is (true? (raft/monitor-raft node #(swap! seen conj %))))
        (is (true? (entry! node [:write "k" 1])))
        (is (true? (got #(raft/new-command node (raft/->RaftCommand [:write "k" 2] "my id" 4000 %)))))
        (got #(raft/get-raft-state node %))
        (raft/register-callback node "x" 5000 identity)
        (got #(raft/invoke-rpc node :add-server "nowhere" %))
        (is (eventually #(every? (set (ops @seen)) [:monitor :new-command :append-entries-response :raft-state :register-callback :add-server])))
        (doseq [e @seen]
          (is (= #{:time :instant :event :before :after} (set (keys e))))
          (is (re-matches #"\d+\.\d{3}ms" (:time e)))
          (is (< (abs (- (long (:instant e)) (System/currentTimeMillis))) 60000))
          (is (not-any? #(contains? % :config) [(:before e) (:after e)]))
          (is (every? #(= "s" (:this-server %)) [(:before e) (:after e)])))
        (is (every? (fn [[a b]] (identical? (:after a) (:before b))) (partition 2 1 @seen)) "each begins where the last one ended")
        (let [[a b] (map (comp second :event) (filter #(= :new-command (first (:event %))) @seen))]
          (is (every? #(instance? quorate.raft.RaftCommand %) [a b]))
          (is (= [[:write "k" 1] [:write "k" 2] "my id"] [(:entry a) (:entry b) (:id b)]))
          (is (re-matches #"[0-9a-f]+\.\d+\.\d+" (:id a)) "the engine's id, where the user gave none"))
        (let [progress (map (comp second :event) (filter #(= :append-entries-response (first (:event %))) @seen))]
          (is (eventually #(= 2 (reduce + (map (comp :count second :event)
                                              (filter (fn [e] (= :append-entries-response (first (:event e)))) @seen))))))
          (is (= {:term (:term (raft/status node)), :leader-id "s"} (select-keys (first progress) [:term :leader-id]))))
        (is (= 1 (count (filter #{:monitor} (ops @seen)))))
        (is (fn? (:monitor-fn (raft/raft-state node))))
        (testing "until it is taken away"
          (is (true? (raft/monitor-raft node nil)))
          (Thread/sleep 100)
          (let [n (count @seen)]
            (entry! node [:write "k" 3])
            (Thread/sleep 100)
            (is (= n (count @seen))))
          (is (not (contains? (raft/raft-state node) :monitor-fn)))
          (is (eventually #(not-any? (fn [^Thread t] (= "quorate-monitor-s" (.getName t))) (keys (Thread/getAllStackTraces)))))
          (is (true? (raft/monitor-raft node "no function")) "what is no function changes nothing, as in fluree"))))))

(deftest the-monitor-sees-followers-apply-and-leaders-change
  (with-three {}
    (fn [nodes _]
      (let [a-leader (nodes/leader nodes)
            follower (first (nodes/followers nodes))
            seen     (atom [])]
        (raft/monitor-raft follower #(swap! seen conj (:event %)))
        (dotimes [i 20] (entry! a-leader [:write i i]))
        (is (eventually #(= 20 (reduce + (map (comp :count second) (filter (fn [[op]] (= :append-entries op)) @seen))))))
        (raft/close a-leader)
        (is (eventually #(some (fn [[op data]] (and (contains? causes op) (contains? data :new-leader))) @seen)))))))

(deftest a-monitor-that-hangs-or-throws-harms-nobody
  (in-directory [directory]
    (let [gate (promise), told (atom [])]
      (with-single [node directory {:error-fn #(swap! told conj (:where %))}]
        (raft/monitor-raft node (fn [{[op] :event}] @gate (when (= :monitor op) (throw (Exception. "mine")))))
        (dotimes [i 6000] (raft/new-entry node [:write "k" i] nil 20000))
        (is (= 5999 (entry! node [:read "k"])))
        (is (pos? (long (:monitor-dropped (raft/status node)))) "what does not fit is dropped and counted")
        (deliver gate true)
        (is (eventually #(= :monitor (first @told))))
        (is (= 5999 (entry! node [:read "k"])))))))

(deftest a-log-of-events-for-a-browser
  (testing "as a websocket handler keeps it: events put on a sliding channel, made text"
    (in-directory [directory]
      (with-single [node directory {}]
        (let [ch (async/chan (async/sliding-buffer 100))]
          (raft/monitor-raft node (fn [{:keys [time instant event before after]}]
                                    (async/put! ch (pr-str {:time time, :instant instant, :op (first event)
                                                            :index [(:index before) (:index after)]}))))
          (entry! node [:write "k" 1])
          (let [lines (eventually (fn [] (let [line (async/<!! ch)] (when (re-find #":append-entries-response" line) line))))]
            (is (re-find #":index \[\d \d\]" lines))))))))
