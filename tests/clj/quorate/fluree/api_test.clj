(ns quorate.fluree.api-test
  "fluree/raft's functions on real nodes: what they take, return, and pass to their callbacks."
  (:require [clojure.java.io :as io]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :refer [eventually]]
            [quorate.fluree.nodes :as nodes :refer [config entry! error-of got in-directory ready! with-single with-three]]
            [quorate.impl.codec :as codec]
            [quorate.raft :as raft]
            [quorate.raft.leader :as leader]
            [quorate.raft.log :as raft-log]
            [quorate.ring.json :as json])
  (:import (java.io File)
           (quorate.impl Span)))

(set! *warn-on-reflection* true)

(defn- span [^bytes bytes]
  (Span. bytes 0 (alength bytes)))

(deftest commands-carry-their-ids-in-the-log
  (doseq [[id entry] [["id" [:write 1]] [(random-uuid) nil] [:k {:a #{1}}] [[1 "x"] "y"]]]
    (let [bytes (codec/encode-command id entry)]
      (is (codec/command? (span bytes)))
      (is (= id (codec/command-id (span bytes))))
      (is (= entry (codec/decode bytes)))))
  (let [bytes (codec/encode-command "id" (byte-array [1 2 3]))]
    (is (= [1 2 3] (seq (codec/decode bytes))) "a byte array stays one"))
  (is (not (codec/command? (span (codec/encode "x")))))
  (doseq [cut [2 5 8]]
    (let [torn (java.util.Arrays/copyOf (codec/encode-command "some id" 1) (int cut))]
      (is (= :raft/corrupt (error-of (codec/decode torn))))
      (is (= :raft/corrupt (error-of (codec/command-id (span torn)))))))
  (is (= :raft/too-large (error-of (codec/encode-command (apply str (repeat 100 "x")) (byte-array (- codec/entry-bytes-max 50))))))
  (is (= :raft/unreadable (error-of (codec/encode-command inc 1)))))

(deftest new-entry-answers-once-with-the-state-machine-s-value
  (in-directory [directory]
    (with-single [node directory {}]
      (is (= [true nil false {:error "State machine error: as asked"} nil]
             (map #(entry! node %) [[:write "k" 1] [:nil] [:false] [:throw] [:read "none"]])))
      (is (true? (raft/new-entry node [:write "k" 2] nil)) "a nil callback is fine")
      (is (= 2 (entry! node [:read "k"])))
      (doseq [timeout [0 -1 nil 1.5 "x"]]
        (is (= :raft/invalid (error-of (raft/new-entry node [:nil] (fn [_]) timeout))) (pr-str timeout))))))

(deftest new-command-answers-the-persist-callback-first
  (in-directory [directory]
    (with-single [node directory {}]
      (let [seen (atom [])
            done (promise)
            command (raft/map->RaftCommand {:entry [:write "k" 1], :id "mine", :timeout 5000
                                            :callback #(do (swap! seen conj [:result %]) (deliver done true))})]
        (is (true? (raft/new-command node command #(swap! seen conj [:persisted %]))))
        (is (true? (deref done 8000 false)))
        (is (= [[:persisted true] [:result true]] @seen)))
      (is (true? (got #(raft/new-command node (raft/->RaftCommand [:write "k" 2] nil nil %)))) "neither id nor timeout")
      (is (true? (raft/new-command node (raft/->RaftCommand [:write "k" 3] "x" 4000 nil))) "nor callbacks")
      (is (= 3 (entry! node [:read "k"])))
      (doseq [wrong [{:entry 1, :id "x"} nil "x"]]
        (is (= :raft/invalid (error-of (raft/new-command node wrong)))))
      (doseq [wrong [(raft/->RaftCommand 1 "x" 0 nil) (raft/->RaftCommand 1 "x" 1.5 nil) (raft/->RaftCommand 1 "x" 10 "f")]]
        (is (= :raft/invalid (error-of (raft/new-command node wrong))))))))

(deftest without-forwarding-a-follower-s-callbacks-get-not-leader
  (with-three {:forward? false}
    (fn [nodes _]
      (nodes/leader nodes)
      (let [follower (first (nodes/followers nodes))
            persist  (promise)
            result   (got #(raft/new-command follower (raft/->RaftCommand [:nil] "id" 5000 %) (fn [x] (deliver persist x))))]
        (is (= {:operation :new-command, :error :raft/not-leader, :id "id"} (select-keys (ex-data result) [:operation :error :id])))
        (is (identical? result (deref persist 0 nil)))))))

(deftest a-registered-callback-fires-where-the-command-is-applied
  (with-three {}
    (fn [nodes _]
      (let [a-leader (nodes/leader nodes)
            answers  (into {} (map (fn [[server node]]
                                     (let [p (promise)]
                                       (is (true? (raft/register-callback node "the id" 10000 #(deliver p %))))
                                       (is (true? (raft/register-callback node "the id" nil #(deliver p %))) "a second one is no harm")
                                       [server p])))
                           nodes)]
        (is (every? #(= {"the id" 2} (:command-callbacks (raft/raft-state %))) (vals nodes)) "the state shows them")
        (is (true? (got #(raft/new-command a-leader (raft/->RaftCommand [:write "k" :v] "the id" 8000 %)))))
        (doseq [[server p] answers]
          (is (true? (deref p 10000 :never)) server))
        (is (eventually #(not-any? (fn [node] (contains? (raft/raft-state node) :command-callbacks)) (vals nodes))))))))

(deftest a-registered-callback-always-gets-an-answer
  (in-directory [directory]
    (let [closed (promise)]
      (with-single [node directory {}]
        (let [late (got #(raft/register-callback node "never sent" 50 %))]
          (is (= "Command timed out." (ex-message late)))
          (is (= {:operation :new-command, :error :raft/command-timeout, :id "never sent"} (ex-data late))))
        (is (= :raft/invalid (error-of (raft/register-callback node "x" 0 (fn [_])))))
        (is (= :raft/invalid (error-of (raft/register-callback node nil 50 (fn [_])))))
        (raft/register-callback node "at close" 60000 #(deliver closed %)))
      (is (= {:operation :new-command, :error :raft/shutdown, :id "at close"} (ex-data (deref closed 0 nil)))
          "by the time that close returns"))))

(deftest forwarding-as-fluree-server-does-it
  (with-three {:forward? false}
    (fn [nodes _]
      (let [a-leader (nodes/leader nodes)
            follower (first (nodes/followers nodes))
            id       (str (random-uuid))
            answer   (promise)]
        (raft/register-callback follower id 8000 #(deliver answer %))
        (is (true? (got #(raft/invoke-rpc a-leader :new-command {:id id, :entry [:write "k" 7]} %))) "the persist callback")
        (is (true? (deref answer 8000 :never)))
        (is (= 7 (entry! a-leader [:read "k"])))))))

(deftest validate-refuses-before-anything-is-logged
  (in-directory [directory]
    (with-single [node directory {:validate (fn [[op _ v]]
                                              (case v :bad false, :worse "not this one", :worst (throw (Exception. "my reason"))
                                                    (when (= :write op) true)))}]
      (is (true? (entry! node [:write "k" 1])))
      (is (nil? (entry! node [:nil])) "nil is fine")
      (let [before (:last-log-index (raft/status node))]
        (doseq [[v said] {:bad #"refused\.", :worse #"refused: not this one", :worst #"refused: my reason"}]
          (let [e (try (raft/new-entry node [:write "k" v] (fn [_])) (catch Exception e e))]
            (is (= :raft/invalid (:error (ex-data e))))
            (is (re-find said (str (ex-message e))))))
        (is (= :raft/invalid (:error (ex-data (got #(raft/invoke-rpc node :new-command {:entry [:write "k" :bad]} %)))))
            "passed, where nothing is thrown")
        (is (= before (:last-log-index (raft/status node))))))))

(def ^:private served
  "What fluree/ledger serves of the state."
  [:snapshot-term :latest-index :snapshot-index :other-servers :index :snapshot-pending :term :leader :timeout-at :this-server
   :status :id :commit :servers :voted-for :timeout-ms])

(deftest the-state-has-fluree-s-keys
  (with-three {}
    (fn [nodes _]
      (let [node (nodes/leader nodes)]
        (is (true? (entry! node [:write "k" 1])))
        (let [state (got #(raft/get-raft-state node %))]
          (is (= #{:id :watch-fns :config :this-server :other-servers :status :leader :log-file :term :index :snapshot-index
                   :snapshot-term :snapshot-pending :commit :latest-index :voted-for :servers :msg-queue :timeout :timeout-ms
                   :timeout-at}
                 (set (keys state))))
          (is (= [:leader (:this-server node) (:this-server node)] ((juxt :status :leader :voted-for) state)))
          (is (= #{"a" "b" "c"} (set (keys (:servers state))) (conj (set (:other-servers state)) (:this-server state))))
          (is (every? #(and (= #{:sent :received :avg-response :last-response-ms} (set (keys (:stats %))))
                            (every? (partial contains? %) [:vote :next-index :match-index :snapshot-index]))
                      (vals (:servers state))))
          (is (eventually #(every? (fn [{:keys [next-index match-index]}] (and match-index (= next-index (inc match-index))))
                                   (vals (:servers (raft/raft-state node))))))
          (is (= [(:term state) true] (:vote (get (:servers state) (:this-server state)))))
          (is (leader/is-leader? state))
          (is (string? (json/write (update (select-keys state served) :servers update-vals #(dissoc % :voter)))))
          (testing "and can be used in place of the node"
            (is (= 1 (entry! state [:read "k"])))
            (is (= 1 (entry! {:config (:config node)} [:read "k"])) "as can whatever has its configuration")))
        (is (not (leader/is-leader? (raft/raft-state (first (nodes/followers nodes))))))))))

(deftest start-returns-what-the-disk-held
  (in-directory [directory]
    (with-single [node directory {}]
      (dotimes [i 5] (entry! node [:write i i]))
      (is (every? #(contains? node %) [:id :watch-fns :config :this-server :other-servers :status :leader :log-file :term :index
                                       :snapshot-index :snapshot-term :snapshot-pending :commit :latest-index :voted-for :servers
                                       :msg-queue])))
    (let [node (raft/start (config directory {}))]
      (try
        (is (pos? (long (:term node))))
        (is (= "s" (:voted-for node)))
        (is (nil? (:snapshot-index node)))
        (finally (raft/close node))))))

(deftest small-functions-of-the-api
  (in-directory [directory]
    (with-single [node directory {:leader-change-fn (fn [_])}]
      (is (contains? @(:watch-fns node) :fluree.raft/default))
      (let [^File log (raft/logfile node)]
        (is (.isDirectory log))
        (is (= (.getAbsoluteFile (io/file directory "group-0" "log")) log (:log-file node))))
      (is (= [1] (raft-log/all-log-indexes (str directory))) "one file of the log")
      (spit (io/file directory "7.raft") "")
      (spit (io/file directory "12.snapshot") "")
      (spit (io/file directory "x12.snapshot") "")
      (is (= #{1 7} (set (raft-log/all-log-indexes (str directory) "raft"))))
      (is (= [12] (raft-log/all-log-indexes (str directory) "snapshot")))
      (is (= [] (raft-log/all-log-indexes (str directory "/none")))))
    (is (= 9 (raft/latest-stored-snapshot {:snapshot-list-indexes (fn [] [3 9])})))
    (is (= [directory 4] (raft/latest-stored-snapshot {:snapshot-list-indexes (fn [dir] [[(.getParentFile (io/file dir)) 4]])
                                                       :log-directory directory})) "the README's form")
    (is (nil? (raft/latest-stored-snapshot {:snapshot-list-indexes (fn [] [])})))
    (is (nil? (raft/latest-stored-snapshot {})))))

(deftest operations-pass-what-is-wrong-and-never-throw
  (in-directory [directory]
    (with-single [node directory {}]
      (is (= "s" (:this-server (got #(raft/invoke-rpc node :raft-state nil %)))))
      (doseq [op [:append-entries :request-vote :install-snapshot :config-change :nonsense nil "x"]]
        (is (= [:raft/invalid op] ((juxt :error :operation) (ex-data (got #(raft/invoke-rpc node op {} %)))))))
      (is (true? (raft/invoke-rpc node :nonsense nil nil)))
      (is (true? (raft/invoke-rpc node :raft-state nil nil)))
      (is (true? (raft/invoke-rpc node :raft-state nil "no function")))
      (is (= :raft/invalid (:error (ex-data (got #(raft/invoke-rpc node :new-command "no map" %))))))
      (is (= :raft/invalid (:error (ex-data (got #(raft/invoke-rpc node :register-callback ["id" -1] %))))))
      (is (= :raft/invalid (:error (ex-data (got #(raft/invoke-rpc node :quorate/message (byte-array 3) %))))))
      (is (instance? clojure.lang.ExceptionInfo (got #(raft/invoke-rpc node :snapshot nil %))) "this state machine has none")
      (is (true? (entry! node [:write "k" 1])) "and the node goes on"))))

(deftest close-by-an-operation
  (in-directory [directory]
    (let [ended (atom 0)
          node  (ready! (raft/start (config directory {:close-fn #(swap! ended inc)})))]
      (is (= :raft-closed (got 20000 #(raft/invoke-rpc node :close :removed-server %))))
      (is (= 1 (raft/close node) @ended) "once, whoever closes")
      (is (= :closed (:status (got #(raft/invoke-rpc node :raft-state nil %)))))
      (is (= :raft/shutdown (:error (ex-data (got #(raft/invoke-rpc node :add-server "b" %))))))
      (is (= :raft/shutdown (:error (ex-data (got #(raft/invoke-rpc node :new-command {:entry 1} %))))))
      (is (= :raft/shutdown (:error (ex-data (got #(raft/register-callback node "x" 100 %)))))))))

(deftest errors-of-callbacks-reach-error-fn-and-the-status
  (in-directory [directory]
    (let [told (promise)]
      (with-single [node directory {:error-fn #(deliver told %)}]
        (raft/new-entry node [:nil] (fn [_] (throw (ex-info "mine" {}))))
        (is (= [:callback "mine"] ((juxt :where (comp ex-message :error)) (deref told 8000 nil))))
        (is (= :callback (:where (:last-error (raft/status node)))))
        (is (nil? (entry! node [:nil])) "and hurt nobody")))))
