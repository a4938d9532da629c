(ns quorate.fluree.membership-test
  "Changes of the members: by operations in fluree's way, by the command channel, by futures; and each way that they can go."
  (:require [clojure.core.async :as async]
            [clojure.java.io :as io]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.fluree.nodes :as nodes :refer [entry! error-of got in-directory with-single with-three]]
            [quorate.impl.members :as members]
            [quorate.raft :as raft])
  (:import (clojure.lang ExceptionInfo)))

(set! *warn-on-reflection* true)

(defn- member-names [node]
  (set (map :name (:members (raft/status node)))))

(defn- voters [node]
  (set (map :name (filter :voter (:members (raft/status node))))))

(defn- failure
  "The `:error` that the future fails with; what it brings when it does not."
  [answer]
  (try @answer (catch ExceptionInfo e (:error (ex-data e)))))

(deftest the-data-of-an-operation-in-each-form
  (doseq [[data expected] {"server4"                         {:server "server4"}
                           :server4                          {:server :server4}
                           ["id" "server4"]                  {:server "server4", :command-id "id"}
                           ["id" :server4 "h:1"]             {:server :server4, :command-id "id", :address "h:1"}
                           '(7 "server4")                    {:server "server4", :command-id 7}
                           {:server "s", :command-id "id"}   {:server "s", :command-id "id"}
                           {:server "s", :address "h:1"}     {:server "s", :address "h:1"}}]
    (let [asked (members/asked data)]
      (is (= expected (select-keys asked (keys expected))) (pr-str data))
      (is (some? (:command-id asked)) "without an id it gets one")))
  (doseq [data [nil "" " " 7 [] ["id"] ["id" 7] ["a" "b" "c" "d"] {} {:command-id 1}]]
    (is (nil? (members/asked data)) (pr-str data))))

(defn- with-fourth
  "Starts three nodes with 50 entries, calls `(ask! nodes leader address)`, starts \"d\" at that address, with an empty disk, and
  calls `(f nodes leader fourth state)`. \"d\" asks to be let in when it starts; who asks for it before that is first."
  [ask! f]
  (with-three {:heartbeat-ms 50, :timeout-ms 300}
    (fn [nodes _]
      (let [a-leader  (nodes/leader nodes)
            [address] (clusters/free-addresses 1)]
        (dotimes [i 50] (is (true? (entry! a-leader [:write i i]))))
        (ask! nodes a-leader address)
        (in-directory [directory]
          (let [state  (atom {})
                fourth (nodes/joiner nodes address directory {:state-machine (nodes/kv-machine state)})]
            (try (f nodes a-leader fourth state)
                 (finally (raft/close fourth)))))))))

(deftest a-new-node-with-an-empty-disk-reads-the-same-state
  (with-fourth
    (fn [_ a-leader address]
      (let [answer (got #(raft/invoke-rpc a-leader :add-server ["id" "d" address] %))]
        (is (= {:op :add, :server "d", :command-id "id"} (dissoc answer :message)))
        (is (= {:id "d", :op :add, :command-id "id"} (:pending-server (raft/raft-state a-leader))))))
    (fn [_nodes a-leader fourth state]
      (do
        (is (eventually 30 #(= #{"a" "b" "c" "d"} (voters a-leader) (voters fourth))))
        (is (eventually #(= (zipmap (range 50) (range 50)) @state)))
        (is (eventually #(not (contains? (raft/raft-state a-leader) :pending-server))) "the change is over")
        (is (true? (entry! fourth [:write :from "d"])) "it takes part")
        (is (= "d" (entry! a-leader [:read :from])))
        (testing "adding it twice"
          (let [again (got #(raft/invoke-rpc a-leader :add-server "d" %))]
            (is (= [{:operation :new-command, :error :raft/cannot-add-server} "d already exists in our network configuration."]
                   [(ex-data again) (ex-message again)])))
          (is (true? @(raft/add-server! a-leader "d" (get-in fourth [:config :servers "d"]) {:timeout-ms 10000})) "a future finds it done"))
        (testing "the README's form of removing"
          (let [answer (got #(raft/invoke-rpc a-leader :remove-server "d" %))]
            (is (= [:remove "d" true] ((juxt :op :server (comp string? :message)) answer)))
            (is (uuid? (parse-uuid (:command-id answer)))))
          (is (eventually 30 #(= #{"a" "b" "c"} (member-names a-leader))))
          (is (= [:raft/cannot-remove-server "d is not in our network configuration. Cannot remove."]
                 (let [e (got #(raft/invoke-rpc a-leader :remove-server ["id" "d"] %))]
                   [(:error (ex-data e)) (ex-message e)]))))))))

(deftest the-command-channel-changes-members-too
  (with-fourth
    (fn [_ a-leader address]
      (let [commands (get-in a-leader [:config :command-chan])]
        (is (= [:add "d"] ((juxt :op :server) (got #(async/put! commands [:add-server ["id" "d" address] %])))))))
    (fn [_nodes a-leader _fourth _]
      (let [commands (get-in a-leader [:config :command-chan])]
        (is (eventually 30 #(= #{"a" "b" "c" "d"} (voters a-leader))))
        ;; The change before may be under way for a moment after its effect is seen; then this one is refused.
        (is (eventually 30 #(= [:remove "d" "my id"]
                               ((juxt :op :server :command-id)
                                (got (fn [tell] (async/put! commands [:remove-server ["my id" "d"] tell])))))))
        (is (eventually 30 #(= #{"a" "b" "c"} (member-names a-leader))))))))

(deftest the-leader-can-be-removed-and-the-others-go-on
  (with-three {:heartbeat-ms 50, :timeout-ms 300}
    (fn [nodes states]
      (let [a-leader (nodes/leader nodes)
            gone     (:this-server a-leader)
            others   (nodes/followers nodes)]
        (is (true? (entry! a-leader [:write "before" 1])))
        (is (= {:op :remove, :server gone, :command-id "id"}
               (dissoc (got #(raft/invoke-rpc a-leader :remove-server ["id" gone] %)) :message)))
        (let [next-leader (eventually 30 (fn [] (first (filter raft/leader? others))))]
          (is (some? next-leader) "another one leads")
          (is (eventually #(= (disj #{"a" "b" "c"} gone) (member-names next-leader))))
          (is (true? (entry! next-leader [:write "after" 2])))
          (is (eventually #(= {"before" 1, "after" 2} @(states (:this-server next-leader))))))
        (is (eventually #(not (raft/leader? a-leader))) "it leads no more")
        (is (eventually #(not (contains? (voters a-leader) gone))) "and knows that it is none of them")))))

(deftest adding-one-that-is-down-ends-in-time-and-changes-nothing
  (with-three {}
    (fn [nodes _]
      (let [a-leader  (nodes/leader nodes)
            [nobody]  (clusters/free-addresses 1)
            answer    (raft/add-server! a-leader "d" nobody {:timeout-ms 1500})
            found     (try @answer (catch ExceptionInfo e e))]
        (is (contains? #{:raft/unavailable :raft/command-timeout} (:error (ex-data found))))
        (is (re-find #"does not answer" (str (ex-message found) (:reason (ex-data found)))) "it says why")
        (is (= #{"a" "b" "c"} (member-names a-leader)))
        (is (true? (entry! a-leader [:write "k" 1])))))))

(deftest one-change-at-a-time-by-operations
  (with-three {}
    (fn [nodes _]
      (let [a-leader (nodes/leader nodes)
            [nobody] (clusters/free-addresses 1)]
        (is (= :add (:op (got #(raft/invoke-rpc a-leader :add-server ["first" "d" nobody] %)))))
        (is (= {:id "d", :op :add, :command-id "first"} (:pending-server (raft/raft-state a-leader))))
        (let [second-one (got #(raft/invoke-rpc a-leader :remove-server "b" %))]
          (is (= :raft/cannot-remove-server (:error (ex-data second-one))))
          (is (= "Cannot have two configuration changes pending at once. Currently attempting to add d." (ex-message second-one))))))))

(deftest without-forwarding-only-the-leader-changes-members
  (with-three {:forward? false}
    (fn [nodes _]
      (nodes/leader nodes)
      (let [follower (first (nodes/followers nodes))]
        (doseq [op [:add-server :remove-server]]
          (is (= {:operation :new-command, :error :raft/not-leader} (ex-data (got #(raft/invoke-rpc follower op ["id" "a"] %))))))))))

(deftest what-cannot-be-is-refused-with-the-reason
  (in-directory [directory]
    (with-single [node directory {:addresses {}}]
      (doseq [[op data error said] [[:remove-server "s" :raft/cannot-remove-server #"no other servers"]
                                    [:remove-server "x" :raft/cannot-remove-server #"is not in our network"]
                                    [:add-server "s" :raft/cannot-add-server #"already exists"]
                                    [:add-server "x" :raft/cannot-add-server #"has no address"]
                                    [:add-server ["id" "x" "nowhere"] :raft/cannot-add-server #"not an address"]
                                    [:add-server 7 :raft/cannot-add-server #"must be a server's name"]
                                    [:remove-server ["id"] :raft/cannot-remove-server #"must be a server's name"]]]
        (let [e (got #(raft/invoke-rpc node op data %))]
          (is (= {:operation :new-command, :error error} (ex-data e)) (pr-str data))
          (is (re-find said (str (ex-message e))))))
      (is (= :raft/membership (failure (raft/remove-server! node "s"))))
      (is (= :raft/membership (failure (raft/remove-server! node "x"))))
      (is (= :raft/config (error-of (raft/add-server! node "x"))))
      (is (= :raft/config (error-of (raft/add-server! node "x" "nowhere")))))))

(deftest down-to-one-and-no-further
  (with-three {:heartbeat-ms 50, :timeout-ms 300}
    (fn [nodes _]
      (let [a-leader (nodes/leader nodes)
            me       (:this-server a-leader)]
        (doseq [other (disj #{"a" "b" "c"} me)]
          (is (true? @(raft/remove-server! a-leader other {:timeout-ms 15000})))
          (is (eventually #(not (contains? (member-names a-leader) other)))))
        (is (= #{me} (member-names a-leader)))
        (is (true? (entry! a-leader [:write "alone" 1])))
        (is (= :raft/membership (failure (raft/remove-server! a-leader me))))
        (is (= :raft/cannot-remove-server (:error (ex-data (got #(raft/invoke-rpc a-leader :remove-server me %))))))))))

(deftest futures-from-any-node-add-remove-and-hand-over
  (let [added (atom nil)]
   (with-fourth
    (fn [nodes _ address]
      (reset! added (raft/add-server! (first (nodes/followers nodes)) "d" address {:timeout-ms 30000})))
    (fn [nodes _ fourth state]
      (let [follower (first (nodes/followers nodes))]
        (is (true? @@added) "done when the change is, also one that began before the server was there")
        (is (= #{"a" "b" "c" "d"} (voters (nodes/leader nodes))))
        (is (true? @(raft/transfer-leader! follower "d" {:timeout-ms 10000})))
        (is (eventually #(raft/leader? fourth)))
        (is (true? (entry! follower [:write :at "d"])))
        (is (eventually #(= "d" (:at @state))))
        (is (true? @(raft/remove-server! follower "d" {:timeout-ms 20000})) "also when it leads")
        (is (eventually 30 #(= #{"a" "b" "c"} (member-names follower))))
        (is (some? (nodes/leader nodes)))
        (is (= "d" (entry! follower [:read :at]))))))))

(deftest names-as-keywords
  (in-directory [directory]
    (let [[address] (clusters/free-addresses 1)
          node (raft/start {:this-server :1, :servers {:1 address}, :log-directory (io/file directory "1"), :log-level :error
                            :state-machine (nodes/kv-machine (atom {}))})]
      (try
        (is (eventually #(= :1 (:leader (raft/raft-state node)))))
        (let [fourth (nodes/joiner {:1 node} (first (clusters/free-addresses 1)) directory
                                   {:this-server :d, :servers {:1 address, :d (first (clusters/free-addresses 1))}})]
          (try
            (is (eventually 30 #(= #{:1 :d} (voters node) (voters fourth))) "a server that came later is a keyword, too")
            (is (= [:d] (:other-servers (raft/raft-state node))))
            (finally (raft/close fourth))))
        (finally (raft/close node))))))
