(ns quorate.fluree.nodes
  "Nodes with a state machine in fluree's way, for the tests of its API."
  (:require [clojure.java.io :as io]
            [clojure.test :refer [is]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.raft :as raft])
  (:import (clojure.lang ExceptionInfo)))

(set! *warn-on-reflection* true)

(defn kv-machine
  "fluree's kv example over the atom `state`; `:throw` throws, `:nil` and `:false` are what they say."
  [state]
  (fn [[op k v] _raft-state]
    (case op
      :write (do (swap! state assoc k v) true)
      :read  (get @state k)
      :nil   nil
      :false false
      :throw (throw (Exception. "as asked")))))

(defn config
  "A single server \"s\" whose data is in `directory`."
  [directory more]
  (merge {:this-server "s", :servers ["s"], :log-directory directory, :log-level :error, :state-machine (kv-machine (atom {}))}
         more))

(defn ready! [node]
  (is (eventually #(raft/leader? node)))
  node)

(defmacro with-single
  "Binds `sym` to a node that leads, `(config directory more)`, and closes it."
  [[sym directory more] & body]
  `(let [~sym (ready! (raft/start (config ~directory ~more)))]
     (try ~@body (finally (raft/close ~sym)))))

(defmacro in-directory
  "Runs `body` with `sym` bound to a fresh directory."
  [[sym] & body]
  `(clusters/with-directory (fn [~sym] ~@body)))

(defmacro error-of
  "The `:error` of the ex-info that `body` throws; nil when it throws none."
  [& body]
  `(try ~@body nil (catch ExceptionInfo e# (:error (ex-data e#)))))

(defn got
  "What `f` passes to the callback that it is given: the first value, within `ms` (10 s)."
  ([f] (got 10000 f))
  ([ms f]
   (let [p (promise)]
     (is (true? (f (fn [x] (deliver p [x])))))
     (first (deref p ms [::never])))))

(defn entry!
  "Sends `entry` and waits for what the callback gets."
  ([node entry] (entry! node entry 8000))
  ([node entry timeout-ms]
   (got (+ 3000 (long timeout-ms)) #(raft/new-entry node entry % timeout-ms))))

(defn with-three
  "Calls `f` with three nodes by name, \"a\" \"b\" \"c\", and the atoms of their state machines by name."
  [more f]
  (let [states (into {} (map (fn [server] [server (atom {})])) ["a" "b" "c"])]
    (clusters/with-nodes ["a" "b" "c"]
      (fn [{:keys [this-server] :as config}]
        (raft/start (merge {:state-machine (kv-machine (states this-server))} config more)))
      raft/close
      (fn [nodes] (f nodes states)))))

(defn leader [nodes]
  (eventually (fn [] (first (filter raft/leader? (vals nodes))))))

(defn followers
  "Those that do not lead now."
  [nodes]
  (vec (remove raft/leader? (vals nodes))))

(defn joiner
  "A node \"d\" at `address`, with an empty disk, that only joins the cluster of `nodes`; with `more`."
  [nodes address directory more]
  (let [known (:servers (:config (first (vals nodes))))]
    (raft/start (merge {:this-server "d", :servers (assoc known "d" address), :log-directory (io/file directory "d"), :log-level :error
                        :join? true, :state-machine (kv-machine (atom {}))}
                       more))))
