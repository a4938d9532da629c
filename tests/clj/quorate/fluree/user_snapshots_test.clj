(ns quorate.fluree.user-snapshots-test
  "Snapshots by the user's own functions, on a single node: in both of fluree's conventions, with every way to fail."
  (:require [clojure.edn :as edn]
            [clojure.java.io :as io]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.fluree.file-snapshots :as files]
            [quorate.fluree.nodes :refer [entry! ready!]]
            [quorate.impl.machine :as machine]
            [quorate.impl.user-snapshots :as user-snapshots]
            [quorate.raft :as raft])
  (:import (clojure.lang ExceptionInfo)
           (java.io File)))

(set! *warn-on-reflection* true)

(defn- entries!
  "Sends `entries` and waits for the result of the last."
  [node entries]
  (doseq [e (butlast entries)] (raft/new-entry node e nil 20000))
  (entry! node (last entries)))

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

;; ------------------------------------------------------------------------------------------ the source's convention

(defn- config [directory user more]
  (merge {:this-server "s", :servers ["s"], :log-directory (io/file directory "raft"), :log-level :error, :snapshot-threshold 50,
          :snapshot-timeout-ms 20000}
         (:fns user)
         more))

(defn- readme-config [directory state overrides]
  (merge {:this-server "s", :servers ["s"], :log-directory (io/file directory "raft"), :log-level :error, :snapshot-threshold 50
          :state-machine    (fn [[_ k v] _] (swap! state assoc k v) v)
          :snapshot-write   (fn [file value] (spit file (pr-str value)))
          :snapshot-reify   (fn [] @state)
          :snapshot-install (fn [value _index] (reset! state value))}
         overrides))

(defn- snapshots [directory] (io/file directory "snapshots"))

(defn- sets [from to]
  (map (fn [i] [:set i i]) (range from to)))

(deftest a-snapshot-is-written-between-two-entries-and-read-before-start-returns
  (clusters/with-directory
   (fn [directory]
     (let [exact (atom [])
           user  (files/user (snapshots directory)
                             {:overrides {:snapshot-write (fn [write]
                                                            (fn [index done]
                                                              (swap! exact conj index)
                                                              (write index done)))}})]
       (with-node [node (config directory user nil)]
         (is (= 519 (entries! node (sets 0 520))))
         (is (eventually #(<= 500 (snapshot-index node))))
         (is (seq @exact))
         (doseq [index @exact]
           (is (= (files/kept index) (edn/read-string (slurp (files/file (snapshots directory) index)))) "the state of that very index")))
       (let [last-written (last @exact)
             again        (files/user (snapshots directory))
             node         (raft/start (config directory again nil))]
         (try
           (is (= [[last-written]] (files/calls again :reify)) "start returned, and reify had run")
           (is (<= (long last-written) (long (:index node)) 520) "the index is there")
           (is (= last-written (:snapshot-index node)))
           (ready! node)
           (is (= 520 (raft/sync node)))
           (is (= (files/kept 520) @(:state again)))
           (is (= (range last-written 520) @(:steps again)) "only what came after the snapshot is applied again")
           (finally (raft/close node))))))))

(deftest the-log-is-purged-only-when-done-was-called-whoever-calls-it-however-often
  (clusters/with-directory
   (fn [directory]
     (let [dones (atom [])
           user  (files/user (snapshots directory)
                             {:overrides {:snapshot-write (fn [write]
                                                            (fn [index done]
                                                              (write index (fn [] (swap! dones conj done)))))}})
           purged #(:purged-log-index (raft/status %))]
       (with-node [node (config directory user {:snapshot-threshold 20, :log-keep-entries 1})]
         ;; One by one: a log entry holds many commands otherwise.
         (doseq [e (sets 0 60)] (entry! node e))
         (is (eventually #(= 1 (count @dones))))
         (let [[[index]] (files/calls user :write)]
           (is (= index (:snapshot-pending (raft/raft-state node))))
           (doseq [e (sets 60 120)] (entry! node e))
           (is (= [1 0 nil] [(count @dones) (snapshot-index node) (purged node)]) "no second one is written meanwhile, and nothing is purged")
           (is (true? ((first @dones) :any "thing")))
           (is (eventually #(= index (snapshot-index node))))
           (is (eventually #(pos? (long (purged node)))))
           ((first @dones))
           ((first @dones) nil nil)
           (is (eventually #(= 2 (count @dones))) "the next one is due at once")
           (is (< (long index) (long (:snapshot-pending (raft/raft-state node)))))
           ((second @dones))
           (is (eventually #(nil? (:snapshot-pending (raft/raft-state node)))))
           (is (= 121 (do (entry! node [:set :x 1]) (raft/sync node))) "the node is well")))))))

(deftest no-second-snapshot-begins-while-one-is-being-written
  (clusters/with-directory
   (fn [directory]
     (let [user    (files/user (snapshots directory) {:overrides {:snapshot-write (fn [_] (fn [_ _] nil))}})
           machine (user-snapshots/user-machine (machine/function-machine (constantly :ok) (constantly {}))
                                                (config directory user {:snapshot-timeout-ms 1000}))
           begin!  (fn [] (let [ended (promise)]
                            (machine/begin-snapshot! machine (str directory "/marker") #(deliver ended %))
                            ended))
           first   (begin!)]
       (is (= 0 (machine/pending-index machine)))
       (is (re-find #"still being written" (ex-message (deref (begin!) 5000 nil))))
       (is (= 1 (count (files/calls user :write))))
       (is (re-find #"within 1000 ms" (ex-message (deref first 5000 nil))))
       (is (nil? (machine/pending-index machine)))))))

(deftest done-may-be-called-before-write-returns
  (clusters/with-directory
   (fn [directory]
     (let [user (files/user (snapshots directory)
                            {:overrides {:snapshot-write (fn [_]
                                                           (fn [_index done] (done) (done :again)))}})]
       (with-node [node (config directory user nil)]
         (is (= 59 (entries! node (sets 0 60))))
         (is (= 60 @(raft/snapshot! node {:timeout-ms 10000}))))))))

(deftest a-function-that-hangs-holds-up-neither-start-nor-close-for-long
  (clusters/with-directory
   (fn [directory]
     (let [state (atom {})]
       (with-node [node (readme-config directory state nil)]
         (is (= 59 (entries! node (sets 0 60))))
         (is (= 60 @(raft/snapshot! node {:timeout-ms 10000}))))
       (let [hanging (promise)
             node    (raft/start (readme-config directory state
                                                {:snapshot-timeout-ms 300
                                                 :snapshot-install    (fn [_ _] (deliver hanging true) (Thread/sleep Long/MAX_VALUE))}))]
         (is (realized? hanging))
         (is (= :closed (deref (future (raft/close node)) 20000 ::hangs))))))))

(deftest a-write-that-throws-or-is-never-done-is-reported-and-tried-again
  (doseq [[what bad said] [["throws" (fn [_ _] (throw (Exception. "disk on fire"))) #"disk on fire"]
                           ["throws an Error" (fn [_ _] (throw (StackOverflowError.))) #"StackOverflowError"]
                           ["is never done" (fn [_ _] nil) #"did not report the snapshot"]
                           ["is done too late" (fn [_ done] (future (Thread/sleep 1000) (done))) #"did not report the snapshot"]]]
    (testing what
      (clusters/with-directory
       (fn [directory]
         (let [tries  (atom 0)
               errors (atom [])
               user   (files/user (snapshots directory)
                                  {:overrides {:snapshot-write (fn [write]
                                                                 (fn [index done]
                                                                   ((if (= 1 (swap! tries inc)) bad write) index done)))}})]
           (with-node [node (config directory user {:snapshot-timeout-ms 400, :error-fn #(swap! errors conj %)})]
             (is (= 59 (entries! node (sets 0 60))))
             (is (eventually #(seq @errors)))
             (is (= :snapshot-write (:where (first @errors))))
             (is (re-find said (:message (first @errors))))
             (is (re-find said (str (:message (:last-error (raft/status node))))) "the status shows it")
             (is (= 60 (entry! node [:set 60 60])) "the node goes on")
             (is (eventually #(<= 60 (snapshot-index node))) "and the next attempt is well")
             (is (= 2 @tries)))))))))

(deftest a-reify-that-throws-at-start-loses-nothing
  (clusters/with-directory
   (fn [directory]
     (let [user (files/user (snapshots directory))
           seen (atom nil)]
       (with-node [node (config directory user nil)]
         (is (= 99 (entries! node (sets 0 100))))
         (is (= 100 @(raft/snapshot! node {:timeout-ms 10000})))
         (reset! seen (raft/status node)))
       (let [broken (atom true)
             errors (atom [])
             again  (files/user (snapshots directory)
                                {:overrides {:snapshot-reify (fn [read]
                                                               (fn [index]
                                                                 (when @broken (throw (Exception. "cannot read")))
                                                                 (read index)))}})
             node   (raft/start (config directory again {:error-fn #(swap! errors conj %)}))]
         (try
           (is (eventually #(= [:snapshot-reify "Error in :snapshot-reify: cannot read"] ((juxt :where :message) (first @errors)))))
           (let [now (raft/status node)]
             (is (= (:snapshot-index @seen) (:snapshot-index now)))
             (is (<= (long (:term @seen)) (long (:term now))))
             (is (= (:id @seen) (:id now)))
             (is (eventually #(re-find #"could not be read" (str (:problem (raft/status node)))))))
           (is (= {} @(:state again)) "nothing is applied to a state that is not there")
           (is (eventually #(<= 5 (count (files/calls again :reify)))) "it is tried again and again")
           (is (>= 2 (count @errors)) "and not reported each time")
           (reset! broken false)
           (ready! node)
           ;; The next attempt comes up to eight seconds later, longer than an entry waits.
           (is (eventually 30 #(= (files/kept 100) @(:state again))))
           (is (= 100 (entry! node [:set 100 100])))
           (is (= (files/kept 101) @(:state again)))
           (finally (raft/close node))))))))

(deftest what-went-on-in-an-interrupted-life-is-not-taken-for-a-snapshot
  (testing "a file that :snapshot-list-indexes shows, of a write that never ended, is not read at the next start"
    (clusters/with-directory
     (fn [directory]
       (let [user (files/user (snapshots directory)
                              {:overrides {:snapshot-write (fn [write]
                                                             (fn [index done]
                                                               (if (< (long index) 100)
                                                                 (write index done)
                                                                 (spit (files/file (snapshots directory) index) "{half"))))}})]
         (with-node [node (config directory user nil)]
           (is (= 59 (entries! node (sets 0 60))))
           (is (eventually #(<= 50 (snapshot-index node))))
           (is (= 149 (entries! node (sets 60 150))))
           (is (eventually #(some-> (:snapshot-pending (raft/raft-state node)) (>= 100)))))
         (let [[[good]] (files/calls user :write)
               again    (files/user (snapshots directory))]
           (with-node [node (config directory again nil)]
             (is (= 150 (raft/sync node)))
             (is (= [[good]] (files/calls again :reify)))
             (is (= (files/kept 150) @(:state again))))))))))

;; ------------------------------------------------------------------------------------------ the README's convention

(deftest what-the-readme-s-functions-throw-is-reported-and-tried-again
  (doseq [[k bad] {:snapshot-write (fn [_ _] (throw (Exception. "no luck"))), :snapshot-reify (fn [] (throw (Exception. "no luck")))}]
    (testing k
      (clusters/with-directory
       (fn [directory]
         (let [state  (atom {})
               broken (atom true)
               errors (atom [])
               good   (k (readme-config directory state nil))
               either (case k
                        :snapshot-write (fn [file value] ((if @broken bad good) file value))
                        :snapshot-reify (fn [] ((if @broken bad good))))]
           (with-node [node (readme-config directory state {k either, :error-fn #(swap! errors conj %)})]
             (is (= 59 (entries! node (sets 0 60))))
             (is (eventually #(= [k (str "Error in " k ": no luck")] ((juxt :where :message) (first @errors)))))
             (is (= 0 (snapshot-index node)))
             (reset! broken false)
             (is (eventually #(= 60 (snapshot-index node)))))))))))

(deftest an-install-that-throws-at-start-is-tried-again
  (clusters/with-directory
   (fn [directory]
     (let [state (atom {})]
       (with-node [node (readme-config directory state nil)]
         (is (= 59 (entries! node (sets 0 60))))
         (is (= 60 @(raft/snapshot! node {:timeout-ms 10000}))))
       (reset! state {})
       (let [tries  (atom 0)
             errors (atom [])]
         (with-node [node (readme-config directory state
                                         {:error-fn         #(swap! errors conj %)
                                          :snapshot-install (fn [value index]
                                                              (when (= 1 (swap! tries inc)) (throw (Exception. "not yet")))
                                                              (is (= 60 index))
                                                              (reset! state value))})]
           (is (= 60 (raft/sync node)))
           (is (= (files/kept 60) @state))
           (is (= 2 @tries))
           (is (= [:snapshot-install] (map :where @errors)))))))))

(deftest a-state-that-cannot-be-written-as-edn-is-said-to-be-so
  (clusters/with-directory
   (fn [directory]
     (let [errors (atom [])]
       (with-node [node (readme-config directory (atom {}) {:snapshot-reify (fn [] {:f inc}), :error-fn #(swap! errors conj %)})]
         (is (= 59 (entries! node (sets 0 60))))
         (is (eventually #(re-find #"a function .* at \[:state :f\]" (str (:message (first @errors)))))))))))

;; --------------------------------------------------------------------------------------------------- configuration

(deftest functions-that-are-missing-are-named-at-start
  (clusters/with-directory
   (fn [directory]
     (let [all     (:fns (files/user (snapshots directory)))
           refused (fn [base & lacking]
                     (try (raft/close (raft/start (apply dissoc (merge base {:log-level :error, :log-directory (str directory "/raft")} all) lacking)))
                          (catch ExceptionInfo e [(:error (ex-data e)) (:key (ex-data e))])))
           alone   {:this-server "s", :servers ["s"]}
           several {:this-server "s", :servers {"s" (first (clusters/free-addresses 1)), "t" "127.0.0.1:9"}}]
       (is (= [:raft/config :snapshot-reify] (refused alone :snapshot-reify)))
       (is (= [:raft/config :snapshot-write] (refused alone :snapshot-write)))
       (is (= :closed (refused alone :snapshot-install :snapshot-xfer :snapshot-list-indexes)) "one alone neither sends nor receives")
       (doseq [k [:snapshot-write :snapshot-reify :snapshot-install :snapshot-xfer]]
         (is (= [:raft/config k] (refused several k))))
       (is (= [:raft/config :callbacks]
              (refused (assoc alone :callbacks :readme)))
           "reify and install of the source's convention do not fit")))))

(deftest without-functions-there-are-no-snapshots-and-that-is-no-problem
  (clusters/with-directory
   (fn [directory]
     (let [state (atom {})]
       (with-node [node (dissoc (readme-config directory state {:snapshot-threshold 10, :log-keep-entries 1})
                                :snapshot-write :snapshot-reify :snapshot-install)]
         (doseq [e (sets 0 60)] (entry! node e))
         (let [failure (try @(raft/snapshot! node) (catch ExceptionInfo e e))]
           (is (instance? ExceptionInfo failure))
           (is (re-find #"no snapshots" (str (ex-message failure) (:reason (ex-data failure))))))
         (let [status (raft/status node)]
           (is (= [0 nil nil] ((juxt :snapshot-index :purged-log-index :problem) status))))))
     (testing "the whole log is replayed"
       (let [state (atom {})]
         (with-node [node (dissoc (readme-config directory state nil) :snapshot-write :snapshot-reify :snapshot-install)]
           (is (= 60 (raft/sync node)))
           (is (= (files/kept 60) @state))))))))
