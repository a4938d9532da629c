(ns quorate.fluree.channels-test
  "fluree's two channels: consumed as its event loop does, with back-pressure, and not needed at all."
  (:require [clojure.core.async :as async]
            [clojure.java.io :as io]
            [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :refer [eventually]]
            [quorate.fluree.nodes :as nodes :refer [config entry! error-of got in-directory ready! with-single]]
            [quorate.impl.channels :as channels]
            [quorate.raft :as raft])
  (:import (java.io File)
           (java.util.concurrent TimeUnit)))

(set! *warn-on-reflection* true)

(deftest start-makes-the-channels-and-consumes-them
  (in-directory [directory]
    (with-single [node directory {}]
      (let [commands (get-in node [:config :command-chan])
            events   (raft/event-chan node)]
        (is (and commands events (not (identical? commands events))))
        (is (true? (got #(async/put! commands [:new-command (raft/->RaftCommand [:write "k" 1] "id" 5000 %) nil]))))
        (is (true? (got #(async/put! commands [:new-command {:entry [:write "k" 2], :callback %} nil]))) "a plain map, as fluree takes it")
        (is (true? (got #(async/put! events [:new-command {:entry [:write "k" 3]} %]))) "the persist callback; either channel will do")
        (is (= 3 (entry! node [:read "k"])))
        (is (= "s" (:leader (got #(async/put! events [:raft-state nil %])))))
        (is (= "s" (:leader (got #(raft/invoke-rpc* events :raft-state nil %)))))
        (is (= "s" (:leader (async/<!! (raft/raft-state-async node)))))
        (is (= :raft/cannot-remove-server (:error (ex-data (got #(async/put! commands [:remove-server ["id" "s"] %]))))))
        (is (= :raft/invalid (:error (ex-data (got #(async/put! events [:append-entries {} %]))))))
        (testing "rubbish is logged, and the next event is served"
          (doseq [event ["rubbish" 7 [] [:new-command] {:a 1}]]
            (async/>!! events event))
          (is (= 3 (entry! node [:read "k"])))
          (is (= "s" (:leader (got #(async/put! events [:raft-state nil %]))))))))))

(deftest given-channels-are-taken-and-close-closes-them
  (in-directory [directory]
    (let [commands (async/chan 4), events (async/chan 4)
          node     (ready! (raft/start (config directory {:command-chan commands, :event-chan events})))]
      (is (identical? commands (get-in node [:config :command-chan])))
      (is (true? (got #(raft/new-entry {:config {:command-chan commands}} [:write "k" 1] %))))
      (raft/close node)
      (is (false? (async/put! events [:raft-state nil nil])))
      (doseq [put! [#(raft/new-entry {:config {:command-chan commands}} [:write "k" 1] %)
                    #(raft/invoke-rpc* events :raft-state nil %)]]
        (let [got (promise)]
          (is (false? (put! #(deliver got %))) "false, as core.async says it, and nothing thrown")
          (is (= :raft/shutdown (:error (ex-data (deref got 0 nil)))))
          (is (false? (put! nil)))))
      (is (eventually #(not-any? (fn [^Thread t] (re-find #"^quorate-(commands|event-chan)-s$" (.getName t)))
                                 (keys (Thread/getAllStackTraces))))
          "the threads that consumed them have ended"))))

(deftest a-stub-with-a-channel-is-enough-to-send
  (let [ch   (async/chan 8)
        stub {:config {:command-chan ch}}
        f    (fn [_])]
    (is (true? (raft/new-entry stub [:write 1] f)))
    (let [[op command persist] (async/<!! ch)]
      (is (= [:new-command nil] [op persist]))
      (is (instance? quorate.raft.RaftCommand command))
      (is (= [[:write 1] 5000 f] ((juxt :entry :timeout :callback) command)))
      (is (uuid? (parse-uuid (:id command)))))
    (is (true? (raft/new-command stub (raft/->RaftCommand 1 "id" 10 nil) f)))
    (is (= [:new-command (raft/->RaftCommand 1 "id" 10 nil) f] (async/<!! ch)))
    (is (true? (raft/new-entry (assoc-in stub [:config :default-command-timeout] 77) 1 nil)))
    (is (= 77 (:timeout (second (async/<!! ch)))))
    (is (= :raft/invalid (error-of (raft/new-entry stub 1 f 0))))
    (is (= :raft/invalid (error-of (raft/new-entry {:config {}} 1 f))))
    (is (= :raft/invalid (error-of (raft/invoke-rpc stub :raft-state nil f))) "it has no channel of events"))
  (let [events (async/chan 8)]
    (is (true? (raft/get-raft-state {:config {:event-chan events}} identity)))
    (is (= [:raft-state nil identity] (async/<!! events)))
    (is (true? (raft/register-callback {:config {:event-chan events}} "id" 7 identity)))
    (is (= [:register-callback ["id" 7] identity] (async/<!! events)))))

(deftest puts-beyond-capacity-wait-and-never-assert
  (let [ch       (async/chan)
        stub     {:config {:command-chan ch}}
        limit    channels/puts-max
        overload (fn [] (error-of (raft/new-entry stub 1 nil 50)))]
    (dotimes [i limit] (raft/new-entry stub i nil 50))
    (is (= :raft/overloaded (overload)) "nobody takes, so there is no room within the timeout")
    (let [waiting (mapv (fn [i] (future (raft/new-entry stub i nil 20000))) (range limit (+ limit 1500)))
          taken   (loop [n 0]
                    (let [[event _] (async/alts!! [ch (async/timeout 5000)])]
                      (if (and event (< (inc n) (+ limit 1500))) (recur (inc n)) (if event (inc n) n))))]
      (is (= (+ limit 1500) taken) "every put arrives once there is a taker")
      (is (every? true? (map #(deref % 5000 :hung) waiting))))
    (dotimes [_ limit] (raft/new-entry stub 1 nil 50))
    (is (= :raft/overloaded (overload)) "and what was taken made room for as many again")))

(deftest a-full-node-holds-up-its-channel
  (in-directory [directory]
    (let [gate   (promise)
          passed (atom 0)]
      (with-single [node directory {:state-machine (fn [entry _] @gate entry)}]
        (let [commands (get-in node [:config :command-chan])
              stub     {:config {:command-chan commands}}
              window   65536]
          (dotimes [i window]
            (raft/new-entry node i (fn [_] (swap! passed inc)) 60000))
          (is (= :raft/overloaded (error-of (raft/new-entry node :more nil))) "a node says so at once")
          (let [answer (promise)]
            (is (true? (raft/new-entry stub :through-the-channel #(deliver answer %) 30000)) "a channel takes it")
            (is (= :waiting (deref answer 200 :waiting)))
            (deliver gate true)
            (is (= :through-the-channel (deref answer 30000 :never)) "and it gets its turn when there is room")
            (is (eventually #(= window @passed)))))))))

(defn- class-path-without-core-async []
  (->> (str/split (System/getProperty "java.class.path") (re-pattern File/pathSeparator))
       (remove #(re-find #"core\.async|tools\.analyzer|core\.memoize|core\.cache|data\.priority-map|[/\\]asm" %))
       (str/join File/pathSeparator)))

(def ^:private script
  "What runs in a process whose class path has no core.async."
  '(do
     (require '[quorate.raft :as raft])
     (assert (nil? (clojure.java.io/resource "clojure/core/async.clj")))
     (let [state (atom {})
           node  (raft/start {:this-server "s", :servers ["s"], :log-directory DIRECTORY, :log-level :error
                              :state-machine (fn [[k v] _] (swap! state assoc k v) v)})
           got   (fn [f] (let [p (promise)] (f (fn [x] (deliver p [x]))) (first (deref p 10000 [:never]))))
           error (fn [f] (try (f) nil (catch clojure.lang.ExceptionInfo e (:error (ex-data e)))))]
       (got (fn [cb] (raft/register-callback node "id" 8000 cb) (raft/new-command node (raft/->RaftCommand [:a 1] "id" 8000 nil))))
       (prn (array-map
             :entry    (got (fn [cb] (raft/new-entry node [:b 2] cb)))
             :state    (:leader (got (fn [cb] (raft/get-raft-state node cb))))
             :rpc      (:leader (got (fn [cb] (raft/invoke-rpc node :raft-state nil cb))))
             :channels [(raft/event-chan node) (get-in node [:config :command-chan])]
             :async    (error (fn [] (raft/raft-state-async node)))
             :stub     (error (fn [] (raft/new-entry {:config {:command-chan :some}} 1 nil)))
             :given    (error (fn [] (raft/start {:this-server "t", :servers ["t"], :log-directory OTHER, :state-machine (fn [_ _])
                                                  :command-chan :some})))
             :kept     @state
             :closed   (raft/close node))))))

(deftest without-core-async-everything-else-works
  (in-directory [directory]
    (let [text    (-> (pr-str script)
                      (str/replace "DIRECTORY" (pr-str (str directory)))
                      (str/replace "OTHER" (pr-str (str (io/file directory "other")))))
          command (concat [(str (System/getProperty "java.home") "/bin/java") "-cp" (class-path-without-core-async)]
                          (filter #(str/starts-with? % "-Dquorate") (.getInputArguments (java.lang.management.ManagementFactory/getRuntimeMXBean)))
                          ["clojure.main" "-e" text])
          errors  (io/file directory "err")
          process (.start (doto (ProcessBuilder. ^java.util.List (vec command))
                            (.redirectError errors)))
          out     (future (slurp (.getInputStream process)))]
      (is (.waitFor process 120 TimeUnit/SECONDS))
      (is (= {:entry 2, :state "s", :rpc "s", :channels [nil nil], :async :raft/invalid, :stub :raft/invalid, :given :raft/config
              :kept {:a 1, :b 2}, :closed :closed}
             (read-string (str @out " nil")))
          (slurp errors)))))
