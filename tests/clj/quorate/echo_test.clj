(ns quorate.echo-test
  "This side of the bridge alone, over the echo engine, which answers every submission with its own bytes: who waits is
  answered once, in order, whatever callbacks do, and at close."
  (:require [clojure.test :refer [deftest is testing]]
            [clojure.tools.logging :as log]
            [quorate.clusters :refer [eventually]]
            [quorate.impl.node :as node]
            [quorate.impl.pending :as pending]
            [quorate.impl.wire :as wire]
            [quorate.raft :as raft])
  (:import (clojure.lang ExceptionInfo)
           (java.util.concurrent ConcurrentLinkedQueue CountDownLatch TimeUnit)
           (java.util.concurrent.atomic AtomicInteger)))

(set! *warn-on-reflection* true)

(defn- start-echo
  ([] (start-echo {}))
  ([more] (raft/start (merge {:engine :echo, :this-server "echo", :servers ["echo"], :reducer (fn [s e _] [s e])} more))))

(defmacro ^:private with-echo [[sym more] & body]
  `(let [~sym (start-echo ~(or more {}))]
     (try ~@body (finally (raft/close ~sym)))))

(defn- rt [node] (:quorate.raft/runtime node))

(defn- submit!
  "Submits `text` as it is; the callback gets the answer as text, or the ex-info."
  ([node text callback] (submit! node text callback 5000))
  ([node ^String text callback timeout-ms]
   (node/submit-entry! (rt node) (wire/utf-8 text)
                       (fn [x] (callback (if (bytes? x) (String. ^bytes x "UTF-8") x)))
                       timeout-ms)))

(defn- await! [^CountDownLatch latch]
  (is (.await latch 20 TimeUnit/SECONDS) "everything was answered"))

(defmacro ^:private error-of [& body]
  `(try ~@body nil (catch ExceptionInfo e# (:error (ex-data e#)))))

(deftest each-of-many-threads-gets-its-own-answers-once
  (with-echo [node]
    (let [threads 16, each 3000
          latch   (CountDownLatch. (* threads each))
          wrong   (AtomicInteger.)
          orders  (vec (repeatedly threads #(ConcurrentLinkedQueue.)))
          workers (mapv (fn [t]
                          (future
                            (dotimes [i each]
                              (let [text (str t "/" i)]
                                (submit! node text (fn [answer]
                                                     (when (not= text answer) (.incrementAndGet wrong))
                                                     (.add ^ConcurrentLinkedQueue (orders t) i)
                                                     (.countDown latch)))))))
                        (range threads))]
      (run! deref workers)
      (await! latch)
      (is (zero? (.get wrong)))
      (doseq [order orders]
        (is (= (range each) (seq order)) "in the order of submission, each once"))
      (is (zero? (pending/waiting (:pending (rt node))))))))

(deftest answers-larger-than-the-buffer-arrive
  (with-echo [node]
    (let [sizes [10 1048576 3000000 8388608 5]
          got   (promise)
          seen  (atom [])]
      (doseq [n sizes]
        (submit! node (str "!echo large " n) (fn [answer]
                                               (when (= (count sizes) (count (swap! seen conj (count answer))))
                                                 (deliver got true)))))
      (is (deref got 20000 false))
      (is (= sizes @seen)))))

(deftest failures-arrive-as-ex-infos-with-the-id
  (with-echo [node]
    (doseq [[code kind] {1 :raft/shutdown, 5 :raft/command-timeout, 6 :raft/not-leader, 7 :raft/unavailable, 8 :raft/state-machine, 16 :raft/internal}]
      (let [answer (promise)]
        (submit! node (str "!echo fail " code) #(deliver answer %))
        (is (= kind (:error (ex-data (deref answer 5000 nil)))))))
    (let [answer (promise)
          ticket (submit! node "!echo delay 3000" #(deliver answer %) 50)
          e      (deref answer 2000 nil)]
      (is (= "Command timed out." (ex-message e)))
      (is (= {:operation :new-command, :error :raft/command-timeout, :id (str "1.1." ticket)}
             (dissoc (ex-data e) :reason))))))

(deftest what-is-refused-at-the-call-is-thrown-and-nobody-waits
  (with-echo [node]
    (doseq [timeout [0 -1 nil 1.5 "x" 1N]]
      (is (= :raft/invalid (error-of (raft/new-entry node 1 (fn [_]) timeout))) (pr-str timeout)))
    (is (= :raft/invalid (error-of (raft/new-entry node 1 "no function"))))
    (is (= :raft/unreadable (error-of (raft/new-entry node {:f inc} (fn [_])))))
    (is (= :raft/too-large (error-of (raft/new-entry node (byte-array (* 8 1024 1024)) (fn [_])))))
    (is (= :raft/invalid (error-of (raft/new-entry {:not "a node"} 1 (fn [_])))))
    (is (= :raft/internal (error-of (submit! node "!echo panic" (fn [_])))) "a panic of the engine")
    (is (zero? (pending/waiting (:pending (rt node)))))
    (is (true? (raft/new-entry node 1 nil)) "a nil callback is fine")))

(deftest a-callback-that-throws-hurts-nobody
  (with-echo [node]
    (let [logged (atom 0)
          after  (promise)]
      (with-redefs [log/log* (fn [_ level _ _] (when (= :error level) (swap! logged inc)))]
        (submit! node "a" (fn [_] (throw (ex-info "mine" {}))))
        (submit! node "b" (fn [_] (throw (StackOverflowError.))))
        (submit! node "c" #(deliver after %))
        (is (= "c" (deref after 5000 nil)))
        (is (= 2 @logged))))))

(deftest a-callback-that-blocks-holds-up-callbacks-and-nothing-else
  (with-echo [node]
    (let [release (promise)
          ran     (AtomicInteger.)
          limit   pending/waiting-max]
      (submit! node "first" (fn [_] @release (.incrementAndGet ran)))
      (let [accepted (loop [n 1]
                       (let [error (error-of (submit! node "x" (fn [_] (.incrementAndGet ran))))]
                         (cond
                           (= :raft/overloaded error) n
                           (> n (* 2 limit))          n
                           :else                      (recur (inc n)))))]
        (is (= limit accepted) "the window is what was accepted and not yet called back")
        (is (= {} (dissoc (raft/status node) :engine :in-flight :index :name :leader :voted-for :members :callbacks-waiting)) "the node still answers")
        (deliver release true)
        (loop [n 200]
          (when (and (pos? n) (< (.get ran) limit)) (Thread/sleep 50) (recur (dec n))))
        (is (= limit (.get ran)))
        (is (true? (raft/new-entry node :again nil)) "and there is room again")))))

(deftest a-future-cannot-be-waited-for-on-the-thread-that-brings-it
  (with-echo [node]
    (let [found (promise)]
      (submit! node "x" (fn [_]
                          (let [answer (node/request! (rt node) wire/snapshot :snapshot (byte-array 0) 1000 identity)]
                            (deliver found (try @answer (catch Throwable t (class t)))))))
      (is (= IllegalStateException (deref found 5000 :hung))))))

(deftest at-close-each-of-thousands-in-flight-is-answered-once
  (dotimes [round 3]
    (let [node     (start-echo)
          accepted (AtomicInteger.)
          answered (AtomicInteger.)
          twice    (AtomicInteger.)
          go       (CountDownLatch. 1)
          submit   (fn []
                     (.await go)
                     (loop []
                       (let [mine  (AtomicInteger.)
                             error (error-of
                                    (submit! node "!echo delay 60000"
                                             (fn [_]
                                               (.incrementAndGet answered)
                                               (when (> (.incrementAndGet mine) 1) (.incrementAndGet twice)))
                                             60000)
                                    (.incrementAndGet accepted))]
                         (case error
                           nil              (recur)
                           :raft/overloaded (recur)
                           error))))
          workers  (mapv (fn [_] (future (submit))) (range 4))]
      (.countDown go)
      (Thread/sleep (* 100 (inc round)))
      (is (= :closed (raft/close node)))
      (is (= [:raft/shutdown] (distinct (map #(deref % 10000 :hung) workers))))
      (is (pos? (.get accepted)))
      (is (eventually 60 #(= (.get accepted) (.get answered)))
          "all: close waits some seconds for their callbacks, which are more than that on a busy machine")
      (is (zero? (.get twice))))))

(deftest whoever-the-engine-left-without-an-answer-gets-one-at-close
  (let [node    (start-echo)
        answers (atom [])
        waiter  (node/->EntryWaiter (rt node) #(swap! answers conj %) nil nil)]
    (pending/register! (:pending (rt node)) (constantly 4711) waiter)
    (raft/close node)
    (is (= [[:raft/shutdown "Raft server shut down." "1.1.4711"]]
           (map (juxt (comp :error ex-data) ex-message (comp :id ex-data)) @answers)))))

(deftest after-close-everything-says-so
  (let [node (start-echo {:close-fn (fn [] :mine)})]
    (is (= :mine (raft/close node)))
    (is (= :mine (raft/close node)) "and again")
    (is (= :raft/shutdown (error-of (raft/new-entry node 1 nil))))
    (is (= :raft/shutdown (error-of (raft/sync node))))
    (is (= :raft/shutdown (error-of (raft/outcome node "1.1.1"))))
    (is (= :closed (:role (raft/status node))))
    (is (= :closed (:status (raft/raft-state node))))
    (is (false? (raft/leader? node)))
    (is (= "#<quorate.raft/Node echo closed>" (pr-str node)))
    (let [state (promise)]
      (is (true? (raft/get-raft-state node #(deliver state (:status %)))))
      (is (= :closed (deref state 1000 nil))))))

(deftest close-may-be-called-from-a-callback-and-by-many
  (let [node  (start-echo)
        found (promise)]
    (submit! node "x" (fn [_] (deliver found (raft/close node))))
    (is (= :closed (deref found 20000 :hung))))
  (let [node (start-echo)]
    (is (= [:closed] (distinct (map deref (mapv (fn [_] (future (raft/close node))) (range 8))))))))

(deftest futures-print-and-fail-as-clojure-has-it
  (with-echo [node]
    (let [ask (fn [^String body timeout] (node/request! (rt node) wire/read-kind :get (wire/utf-8 body) timeout #(String. ^bytes % "UTF-8")))]
      (is (= "hello" @(ask "hello" 1000)))
      (is (= "HELLO" @(.thenApply ^quorate.impl.Answer (ask "hello" 1000)
                                  (reify java.util.function.Function (apply [_ s] (.toUpperCase ^String s))))))
      (is (= ::late (deref (ask "!echo delay 500" 5000) 10 ::late)))
      (is (= "#<quorate/Answer pending>" (pr-str (ask "!echo delay 500" 5000))))
      (let [failing (ask "!echo fail 7" 1000)
            e       (try @failing (catch ExceptionInfo e e))]
        (is (= {:error :raft/unavailable, :operation :get} (ex-data e)))
        (is (some #(re-find #"echo_test" (str (.getFileName ^StackTraceElement %))) (.getStackTrace ^Throwable e))
            "with the stack of who waited")
        (is (re-find #"^#<quorate/Answer failed: " (pr-str failing)))))))
