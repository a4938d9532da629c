(ns quorate.fluree.user-snapshots-test
  "Snapshots by the user's own functions, on a single node: in both of fluree's conventions, with every way to fail."
  (:require [clojure.edn :as edn]
            [clojure.java.io :as io]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.raft :as raft])
  (:import (clojure.lang ExceptionInfo)
           (java.io File)
           (java.util.concurrent CountDownLatch TimeUnit)))

(set! *warn-on-reflection* true)

(defn- entry!
  "Sends `entry` and waits for what the callback gets."
  [node entry]
  (let [got (promise)]
    (raft/new-entry node entry #(deliver got %) 8000)
    (deref got 10000 ::never)))

(defn- entries!
  "Sends `entries` and waits for the result of the last."
  [node entries]
  (doseq [e (butlast entries)] (raft/new-entry node e nil 20000))
  (entry! node (last entries)))

(defn- ready! [node]
  (is (eventually #(raft/leader? node)))
  node)

(defmacro ^:private with-node [[sym config] & body]
  `(let [~sym (ready! (raft/start ~config))]
     (try ~@body (finally (raft/close ~sym)))))

(defn- snapshot-index [node]
  (long (:snapshot-index (raft/status node))))

;; ------------------------------------------------------------------------------------- the README's own example

(def ^:private app-state (atom {}))

(defn- state-machine [entry _raft-state]
  (swap! app-state
         (fn [state]
           (case (:op entry)
             :set (assoc state (:key entry) (:value entry))
             :delete (dissoc state (:key entry))
             state)))
  true)

(defn- minimal-config
  "The minimal example of fluree/raft's README; only the directory is another."
  [directory]
  {:servers ["server1"]
   :this-server "server1"
   :send-rpc-fn (fn [_server _msg callback]
                  (when callback (callback nil)))
   :leader-change-fn (fn [event]
                       (println "Leader changed to:" (:new-leader event)))
   :log-directory directory
   :state-machine state-machine
   :snapshot-write (fn [file state]
                     (spit file (pr-str state)))
   :snapshot-reify (fn [] @app-state)
   :snapshot-install (fn [snapshot _index]
                       (reset! app-state snapshot))
   :snapshot-xfer (fn [_snapshot _server]
                    nil)
   :snapshot-list-indexes (fn [_dir]
                            [])})

(deftest the-minimal-example-runs-as-printed-through-snapshots-and-a-restart
  (clusters/with-directory
   (fn [directory]
     (let [config (minimal-config (str directory))
           kept   (fn [n] (into {} (map (fn [i] [(str "k" i) i])) (range n)))
           sets   (fn [from to] (map (fn [i] {:op :set, :key (str "k" i), :value i}) (range from to)))]
       (reset! app-state {})
       (with-node [raft-instance config]
         (let [got (promise)]
           (is (true? (raft/new-entry raft-instance {:op :set :key "foo" :value "bar"} (fn [success?] (deliver got success?)) 5000)))
           (is (true? (deref got 8000 nil))))
         (is (true? (entries! raft-instance (sets 0 350))) "past entry 101")
         (is (eventually #(<= 300 (snapshot-index raft-instance))) "a snapshot every 100 entries")
         (is (true? (entries! raft-instance [{:op :delete, :key "foo"}])))
         (is (= (kept 350) @app-state))
         (testing "what :snapshot-write wrote is a file of a state, and only the newest few stay"
           (let [files (filter #(re-matches #"\d+\.snapshot" (.getName ^File %)) (file-seq directory))]
             (is (<= 1 (count files) 3) (pr-str files))
             (is (every? #(= "bar" (get (edn/read-string (slurp %)) "foo")) files)))))
       (reset! app-state {})
       (with-node [raft-instance config]
         (is (= 352 (raft/sync raft-instance)))
         (is (= (kept 350) @app-state) "the state is back")
         (is (true? (entries! raft-instance (sets 350 600))))
         (is (eventually #(<= 550 (snapshot-index raft-instance))))
         (is (= (kept 600) @app-state)))))))
