(ns quorate.fluree.compat-test
  "`:compat :strict`: fluree/raft's own behaviour where it is harmless, beside ours."
  (:require [clojure.test :refer [deftest is testing]]
            [clojure.tools.logging :as log]
            [quorate.clusters :refer [eventually]]
            [quorate.fluree.nodes :as nodes :refer [config entry! error-of got in-directory ready! with-single with-three]]
            [quorate.impl.config :as checked]
            [quorate.raft :as raft]))

(set! *warn-on-reflection* true)

(deftest a-follower-s-callback
  (testing "ours forwards"
    (with-three {}
      (fn [nodes _]
        (nodes/leader nodes)
        (is (true? (entry! (first (nodes/followers nodes)) [:write "k" 1]))))))
  (testing "fluree's is silent, and its persist callback is not"
    (with-three {:compat :strict}
      (fn [nodes states]
        (let [a-leader (nodes/leader nodes)
              follower (first (nodes/followers nodes))
              called   (atom [])
              answer   (got #(raft/new-command follower (raft/->RaftCommand [:write "k" 1] "id" 1000 (fn [x] (swap! called conj x))) %))]
          (is (= {:operation :new-command, :error :raft/not-leader} (select-keys (ex-data answer) [:operation :error])))
          (is (true? (raft/new-entry follower [:write "k" 2] (fn [x] (swap! called conj x)) 500)))
          (Thread/sleep 1500)
          (is (= [] @called) "not even at its timeout")
          (is (true? (entry! a-leader [:write "k" 3])) "the leader's is called")
          (is (eventually #(every? (fn [state] (= {"k" 3} @state)) (vals states))) "and nothing else was logged")))))
  (is (true? (:forward? (checked/checked {:this-server "a", :servers ["a"], :state-machine (fn [_ _]), :compat :strict, :forward? true})))
      "unless it is asked for"))

(defn- states-at
  "`[status-before status-after]` of the first event of `kind` that a single node's watch gets."
  [directory more kind]
  (let [seen (promise)]
    (with-single [_node directory (merge more {:leader-change-fn (fn [e] (when (kind e) (deliver seen e)))})]
      (let [e (deref seen 10000 nil)]
        [(:status (:old-raft-state e)) (:status (:new-raft-state e)) (= "s" (:new-leader e))]))))

(deftest the-states-of-a-watch
  (let [won #(= :become-leader (:event %))]
    (in-directory [directory]
      (let [[before after names?] (states-at directory {} won)]
        (is (= [true :leader true] [(not= :leader before) after names?]) "ours: before, after")))
    (in-directory [directory]
      (let [[before after names?] (states-at directory {:compat :strict} won)]
        (is (= [:leader true true] [before (not= :leader after) names?]) "fluree's: swapped")))))

(defn- warnings [config]
  (let [lines (atom [])]
    (with-redefs [log/log* (fn [_ level _ message] (when (= :warn level) (swap! lines conj message)))]
      (checked/checked config))
    @lines))

(deftest unknown-keys
  (let [config {:this-server "a", :servers ["a"], :state-machine (fn [_ _]), :only-leader-snapshots true, :heartbeat 1}]
    (is (= 2 (count (warnings config))))
    (is (= [] (warnings (assoc config :compat :strict))))
    (is (= :raft/config (error-of (checked/checked (assoc config :compat :strict, :strict-config true)))) "an error is still asked for")))

(defn- after-close
  "What each call on a closed node gives: what it returns or throws, and what its callback got within a moment."
  [node]
  (let [call (fn [f]
               (let [got (atom :nothing)]
                 [(let [x (try (f (fn [x] (reset! got (:error (ex-data x) (:status x)))))
                               (catch clojure.lang.ExceptionInfo e (:error (ex-data e))))]
                    x)
                  @got]))]
    (array-map
     :new-entry         (call #(raft/new-entry node [:nil] %))
     :new-command       (call #(raft/new-command node (raft/->RaftCommand [:nil] "id" 100 %)))
     :register-callback (call #(raft/register-callback node "id" 100 %))
     :raft-state        (call #(raft/invoke-rpc node :raft-state nil %))
     :add-server        (call #(raft/invoke-rpc node :add-server "x" %)))))

(deftest after-close-
  (in-directory [directory]
    (let [node (ready! (raft/start (config directory {})))]
      (raft/close node)
      (is (= {:new-entry [:raft/shutdown :nothing], :new-command [:raft/shutdown :nothing], :register-callback [true :raft/shutdown]
              :raft-state [true :closed], :add-server [true :raft/shutdown]}
             (after-close node)) "ours says so")))
  (in-directory [directory]
    (let [node (ready! (raft/start (config directory {:compat :strict})))]
      (raft/close node)
      (is (= {:new-entry [true :nothing], :new-command [true :nothing], :register-callback [true :nothing]
              :raft-state [true :nothing], :add-server [true :nothing]}
             (after-close node)) "fluree's is silence")
      (is (= :closed (raft/close node)))
      (is (= :raft/invalid (error-of (raft/new-entry node [:nil] nil 0))) "a wrong argument is one"))))
