(ns quorate.impl.pending
  "Who waits for which ticket, and how many at most.

  The engine may answer a ticket before `submit` has returned it. So submitters register under a shared lock, and whoever
  brings an answer and finds nobody waits, by taking the lock for itself, until every submission under way has
  registered; who is not there then was answered before. Removal from the map is what makes an answer happen once."
  (:require [quorate.impl.errors :as errors])
  (:import (java.util ArrayList)
           (java.util.concurrent ConcurrentHashMap)
           (java.util.concurrent.atomic AtomicLong)
           (java.util.concurrent.locks StampedLock)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:const waiting-max
  "Submissions of one node whose callback has not run yet. The engine's own window (IN_FLIGHT_MAX in limits.rs) ends with
  its answer; this one ends with the callback, so that a callback that blocks cannot pile up answers without end."
  65536)

(defprotocol Waiter
  "Who waits for one answer. Both are called on the callbacks thread, one of them, once."
  (done! [_ result] "The result.")
  (failed! [_ ticket code message] "An engine code and its message."))

;; A waiter that is answered on the thread that brings the answer: it must neither wait nor call the user's functions.
(definterface Immediate)

(deftype Pending [^ConcurrentHashMap waiters ^StampedLock lock ^AtomicLong waiting])

(defn pending
  "Nobody waits."
  []
  (Pending. (ConcurrentHashMap.) (StampedLock.) (AtomicLong.)))

(defn waiting
  "How many submissions have been accepted whose callback has not run."
  ^long [^Pending p]
  (.get ^AtomicLong (.-waiting p)))

(defn settled!
  "The callbacks of `n` answers have run."
  [^Pending p ^long n]
  (.addAndGet ^AtomicLong (.-waiting p) (- n)))

(defn enter!
  "Counts one more that waits. Throws ex-info `:raft/overloaded` when there are too many."
  [^Pending p]
  (when (> (.incrementAndGet ^AtomicLong (.-waiting p)) waiting-max)
    (settled! p 1)
    (throw (errors/error :raft/overloaded
                         (str waiting-max " submissions of this node wait for their callbacks: submit more slowly.")
                         {:limit waiting-max}))))

(defmacro sharing
  "Evaluates `body` as [[shared]] calls its function."
  [p & body]
  `(let [^StampedLock lock# (.-lock ~p)
         stamp# (.readLock lock#)]
     (try
       ~@body
       (finally
         (.unlockRead lock# stamp#)))))

(defn shared
  "What `f` returns, called as a registration that answers wait for: see [[quiesce!]]. `f` must neither wait nor register."
  [^Pending p f]
  (sharing p (f)))

(defmacro registering
  "Evaluates `submit`, an expression that gives a ticket, and has `waiter` wait for its answer. Returns the ticket. When `submit`
  throws, or too many wait (ex-info `:raft/overloaded`), nothing is registered. A macro, since this is done for each entry."
  [p submit waiter]
  `(let [^Pending p# ~p]
     (enter! p#)
     (try
       (sharing p#
         (let [ticket# ~submit]
           (.put ^ConcurrentHashMap (.-waiters p#) ticket# ~waiter)
           ticket#))
       (catch Throwable t#
         (settled! p# 1)
         (throw t#)))))

(defn register!
  "[[registering]] with `submit` as a function."
  [p submit waiter]
  (registering p (submit) waiter))

(defn quiesce!
  "Waits until every registration that is under way now has ended."
  [^Pending p]
  (let [^StampedLock lock (.-lock p)]
    (.unlockWrite lock (.writeLock lock))))

(defn take!
  "Whoever waits for `ticket`, who then waits no more; nil when the ticket was answered before. Who gets a waiter
  answers it and reports [[settled!]]."
  [^Pending p ^long ticket]
  (let [^ConcurrentHashMap waiters (.-waiters p)]
    (or (.remove waiters ticket)
        (do (quiesce! p)
            (.remove waiters ticket)))))

(defn take-all!
  "All who still wait, as `[ticket waiter]` in the order of their tickets. For the end, when nothing is accepted any more."
  [^Pending p]
  (quiesce! p)
  (let [^ConcurrentHashMap waiters (.-waiters p)]
    (->> (ArrayList. (.keySet waiters))
         sort
         (keep (fn [ticket]
                 (when-let [waiter (.remove waiters ticket)]
                   [ticket waiter])))
         vec)))
