(ns quorate.impl.closing
  "The end of a node: the engine, whoever waits, the threads."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.channels :as channels]
            [quorate.impl.courier :as courier]
            [quorate.impl.lanes :as lanes]
            [quorate.impl.monitor :as monitor]
            [quorate.impl.node :as node]
            [quorate.impl.pending :as pending]
            [quorate.impl.registered :as registered]
            [quorate.impl.report :as report]
            [quorate.impl.runner :as runner]
            [quorate.impl.session :as session])
  (:import (java.util.concurrent.atomic AtomicBoolean)))

(set! *warn-on-reflection* true)

(def ^:private ^:const join-ms "How long a close waits for each thread." 5000)

(defn- join-threads! [rt]
  (doseq [^Thread thread @(:threads rt)
          :when (not (identical? thread (Thread/currentThread)))]
    (.join thread join-ms)
    (when (.isAlive thread)
      (log/warn "The thread" (.getName thread) "is still busy; the node is closed without it."))))

(defn- answer-the-rest!
  "Whoever still waits is told that the node is shut down."
  [{:keys [pending callbacks]}]
  (let [rest   (pending/take-all! pending)
        tell!  (fn []
                 (doseq [[ticket waiter] rest]
                   (runner/guarded "A callback threw." (pending/failed! waiter ticket 1 "The node was closed."))
                   (pending/settled! pending 1)))]
    (when-not (runner/offer! callbacks tell!)
      (tell!))))

(defn- close-engine! [rt]
  (try
    (session/close! (:handle rt))
    (catch Throwable t
      (log/error t "The engine of" (:name rt) "did not close in order."))))

(defn- closed-by-user [rt]
  (if-let [f (:close-fn (:config rt))]
    (report/reported [rt :close-fn] (f))
    :closed))

(defn- remember-last!
  "Keeps what can be asked of a closed node: its last status and its identity. That there is none is no reason not to
  close."
  [rt]
  (node/ask-identity! rt)
  (try
    (reset! (:last-status rt) (node/live-status rt))
    (catch clojure.lang.ExceptionInfo e
      (log/debug e "The last status of" (:name rt) "is not known."))))

(defn- stop-transfers! [{:keys [transfers]}]
  (when (realized? transfers)
    (runner/stop! @transfers join-ms)))

(defn- stop-runners!
  "Ends the threads that run the user's functions, once they have run what is queued."
  [{:keys [callbacks watches pool]}]
  (runner/stop! callbacks join-ms)
  (runner/stop! watches join-ms)
  (lanes/stop! pool join-ms))

(defn- mine?
  "True on a thread that close would wait for."
  [{:keys [callbacks watches pool]}]
  (or (runner/mine? callbacks) (runner/mine? watches) (lanes/mine? pool)))

(defn close!
  "Closes the engine, answers whoever waits, ends the threads, calls `:close-fn`. Returns what that returns, or `:closed`;
  the same again when it is called again. Takes seconds at most."
  [{:keys [ended] :as rt}]
  (if (.compareAndSet ^AtomicBoolean (:closing rt) false true)
    (do
      (channels/close! (:config rt))
      (remember-last! rt)
      (close-engine! rt)
      (join-threads! rt)
      (courier/stop! (:courier rt) join-ms)
      (stop-transfers! rt)
      (answer-the-rest! rt)
      (registered/stop! (:registered rt) (partial node/pass! rt))
      (monitor/stop! (:monitor rt))
      (let [result (closed-by-user rt)]
        (stop-runners! rt)
        (deliver ended result)
        result))
    (if (mine? rt)
      (if (realized? ended) @ended :closed)
      (deref ended (* 5 join-ms) :closed))))
