(ns quorate.config-test
  "What a user may write in the configuration, and what he is told about the rest."
  (:require [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [clojure.tools.logging :as log]
            [quorate.impl.config :as config])
  (:import (clojure.lang ExceptionInfo)))

(set! *warn-on-reflection* true)

(def ^:private single {:this-server "a", :servers ["a"], :state-machine (fn [_ _])})

(def ^:private three
  {:this-server "a", :servers {"a" "127.0.0.1:7001", "b" "127.0.0.1:7002", "c" "localhost:7003"}, :state-machine (fn [_ _])})

(defn- refusal
  "`[key message]` of the refusal of `config`; nil when it is accepted."
  [config]
  (try (config/checked config) nil
       (catch ExceptionInfo e
         (is (= :raft/config (:error (ex-data e))))
         [(:key (ex-data e)) (ex-message e)])))

(defn- warnings
  "What checking `config` logs as warnings."
  [config]
  (let [lines (atom [])]
    (with-redefs [log/log* (fn [_ level _ message] (swap! lines conj [level message]))]
      (config/checked config))
    (map second (filter #(= :warn (first %)) @lines))))

(deftest names-become-addresses-in-each-of-the-ways
  (is (= {"a" ""} (:servers (config/for-engine (config/checked single)))))
  (is (= {"a" "127.0.0.1:7001", "b" "127.0.0.1:7002", "c" "localhost:7003"}
         (:servers (config/for-engine (config/checked three)))))
  (is (= {"127.0.0.1:1" "127.0.0.1:1", "/ip4/127.0.0.1/tcp/62071" "127.0.0.1:62071", "/ip6/::1/tcp/9" "[::1]:9", "x" "h:5"}
         (:servers (config/for-engine (config/checked {:this-server "x"
                                                       :servers ["127.0.0.1:1" "/ip4/127.0.0.1/tcp/62071" "/ip6/::1/tcp/9" "x"]
                                                       :addresses {"x" "h:5"}
                                                       :reducer (fn [_ _ _])})))))
  (testing "keywords, as fluree takes them"
    (let [engine (config/for-engine (config/checked {:this-server :a, :servers {:a "h:1", :x/b "h:2"}, :reducer (fn [_ _ _])}))]
      (is (= ["a" {"a" "h:1", "x/b" "h:2"}] [(:name engine) (:servers engine)])))))

(deftest defaults-are-fluree-s
  (let [config (config/checked single)]
    (is (= [500 100 4000 "raftlog/" true]
           ((juxt :timeout-ms :heartbeat-ms :default-command-timeout :log-directory :forward?) config)))
    (is (= {:heartbeat-ms 100, :election-timeout-ms 500, :forward true, :machine :hosted, :engine :node, :name "a"}
           (dissoc (config/for-engine (config/checked (-> single (dissoc :state-machine) (assoc :reducer (fn [_ _ _])))))
                   :servers :data-dir))))
  (is (= 500 (:timeout-ms (config/checked (assoc single :timeout-ms nil)))) "nil counts as not given"))

(deftest snapshots-of-a-state-machine-are-fluree-s
  (let [engine (fn [more] (select-keys (config/for-engine (config/checked (merge single more)))
                                       [:snapshots :snapshot-commands :log-keep-entries :snapshot-timeout-ms]))
        users  {:snapshot-write (fn [_ _]), :snapshot-reify (fn [_])}]
    (is (= {:snapshots false} (engine {})) "none without its functions")
    (is (= {:snapshot-commands 100, :log-keep-entries 1000, :snapshot-timeout-ms 65000} (engine users)))
    (is (= {:snapshot-commands 1000, :log-keep-entries 3000, :snapshot-timeout-ms 5300}
           (engine (merge users {:snapshot-threshold 1000, :log-history 3, :snapshot-timeout-ms 300}))))
    (is (= 7 (:log-keep-entries (engine (merge users {:log-keep-entries 7}))))))
  (is (= 9 (:snapshot-timeout-ms (config/for-engine (config/checked {:this-server "a", :servers ["a"], :reducer (fn [_ _ _])
                                                                     :snapshot-timeout-ms 9}))))))

(deftest the-user-s-own-transport-needs-no-addresses
  (let [send  (fn [_server _message _callback])
        names {:this-server :a, :servers [:a "b"], :state-machine (fn [_ _]), :send-rpc-fn send}
        engine (fn [config] (select-keys (config/for-engine (config/checked config)) [:transport :servers]))]
    (is (= {:transport :host, :servers {"a" "a", "b" "b"}} (engine names)))
    (is (= {:transport :host, :servers {"127.0.0.1:1" "127.0.0.1:1", "127.0.0.1:2" "127.0.0.1:2"}}
           (engine (assoc names :this-server "127.0.0.1:1" :servers ["127.0.0.1:1" "127.0.0.1:2"]))) "also when the names are addresses")
    (is (= {:servers {"127.0.0.1:1" "127.0.0.1:1", "127.0.0.1:2" "127.0.0.1:2"}}
           (engine (assoc names :this-server "127.0.0.1:1" :servers ["127.0.0.1:1" "127.0.0.1:2"] :transport :native))) "unless it is said")
    (is (= {:servers {"a" ""}} (engine (assoc names :servers [:a]))) "a single server needs none")
    (is (= {:transport :host, :servers {"a" "a"}} (engine (assoc names :servers [:a] :transport :user))) "but may have it")
    (is (= :addresses (first (refusal (assoc names :transport :native)))))
    (is (= :send-rpc-fn (first (refusal (-> names (dissoc :send-rpc-fn) (assoc :transport :user))))))
    (is (= :transport (first (refusal (assoc names :transport :carrier-pigeon)))))))

(deftest each-wrong-value-is-refused-with-a-sentence-and-its-key
  (doseq [[config k said] [[nil nil "must be a map"]
                           [{} :this-server "needs :this-server"]
                           [(assoc single :this-server 1) :this-server "not 1"]
                           [(assoc single :this-server nil) :this-server "not nil"]
                           [(assoc single :servers nil) :servers "vector of server names"]
                           [(assoc single :servers []) :servers "needs :servers"]
                           [(assoc single :servers "a") :servers "not \"a\""]
                           [(assoc single :this-server "z") :this-server "not among"]
                           [(assoc single :servers ["a" "b"]) :addresses "\"a\" has no address"]
                           [(assoc single :servers ["a" "a"]) :servers "Two servers"]
                           [(assoc single :servers [:a "a"] :this-server :a) :servers "Two servers"]
                           [(assoc-in three [:servers "b"] "127.0.0.1:7001") :addresses "the address \"127.0.0.1:7001\""]
                           [(assoc-in three [:servers "b"] "nowhere") :addresses "not an address"]
                           [(assoc-in three [:servers "b"] 7) :addresses "must be \"host:port\""]
                           [(assoc-in three [:servers "b"] "h:70000") :addresses "no port"]
                           [(assoc three :addresses {"q" "h:1"}) :addresses "not among"]
                           [(assoc single :timeout-ms 0) :timeout-ms "positive whole number"]
                           [(assoc single :timeout-ms 1.5) :timeout-ms "not 1.5"]
                           [(assoc single :timeout-ms "500") :timeout-ms "not \"500\""]
                           [(assoc single :timeout-ms 150) :timeout-ms "cannot work"]
                           [(assoc single :heartbeat-ms -1) :heartbeat-ms "positive"]
                           [(assoc single :default-command-timeout 0) :default-command-timeout "positive"]
                           [(assoc single :snapshot-threshold 0) :snapshot-threshold "positive"]
                           [(assoc single :spin-us 10001) :spin-us "microseconds"]
                           [(assoc single :log-directory 7) :log-directory "path"]
                           [(assoc single :log-directory " ") :log-directory "path"]
                           [(assoc single :leader-change-fn "f") :leader-change-fn "function"]
                           [(assoc single :forward? 1) :forward? "true or false"]
                           [(dissoc single :state-machine) :state-machine "needs a :state-machine or a :reducer"]
                           [(assoc single :reducer (fn [_ _ _])) :state-machine "Only one"]
                           [(assoc single :initial-state 1) :initial-state "goes with a :reducer"]]
          :let [[found-key message] (refusal config)]]
    (is (= k found-key) (pr-str message))
    (is (some-> message (str/includes? said)) (pr-str message said))))

(deftest misspelt-keys-are-a-warning-with-the-nearest-or-an-error-when-asked
  (is (= ["The configuration key :heartbeat is unknown; did you mean :heartbeat-ms?"] (warnings (assoc single :heartbeat 1))))
  (is (= ["The configuration key :snapshot-treshold is unknown; did you mean :snapshot-threshold?"]
         (warnings (assoc single :snapshot-treshold 1))))
  (is (= ["The configuration key :only-leader-snapshots is unknown."] (warnings (assoc single :only-leader-snapshots true))))
  (is (= [] (warnings (assoc single :my.app/own 1))) "keys with a namespace are the user's")
  (is (re-find #":snapshot-write has no effect" (first (warnings (-> single (dissoc :state-machine)
                                                                       (assoc :reducer (fn [_ _ _]), :snapshot-write (fn [_ _])))))))
  (is (= [] (warnings (assoc single :entries-max 50, :entry-cache-size 50, :catch-up-rounds 10, :log-history 10
                             :send-rpc-fn (fn [_ _ _]) :command-chan nil))) "fluree's keys")
  (is (= true (:only-leader-snapshots (config/checked (assoc single :only-leader-snapshots true)))) "and is kept")
  (let [[k message] (refusal (assoc single :timeout 1 :strict-config true))]
    (is (= :timeout k))
    (is (str/includes? message "did you mean :timeout-ms?"))))
