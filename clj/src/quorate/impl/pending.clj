(ns quorate.impl.pending
  "Who waits for which ticket, and how many at most.

  The engine may answer a ticket before `submit` has returned it. So submitters register under a shared lock, and whoever
  brings an answer and finds nobody waits, by taking the lock for itself, until every submission under way has
  registered; who is not there then was answered before. Removal is what makes an answer happen once.

  Tickets of entries are consecutive, so those who wait are in a ring, at their ticket's place; who finds that place taken (by
  one who has been waiting for very long) is in a map instead."
  (:require [quorate.impl.errors :as errors])
  (:import (java.util.concurrent ConcurrentHashMap)
           (java.util.concurrent.atomic AtomicLong AtomicLongArray AtomicReferenceArray)
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

(def ^:private ^:const ring-places "A power of two." 8192)

;; A place of the ring is null, or `claimed` while its ticket is written, or has the waiter.
(def ^:private claimed (Object.))

(deftype Pending [^AtomicReferenceArray ring ^AtomicLongArray tickets ^ConcurrentHashMap others ^StampedLock lock
                  ^AtomicLong waiting])

(defn pending
  "Nobody waits."
  []
  (Pending. (AtomicReferenceArray. (int ring-places)) (AtomicLongArray. (int ring-places)) (ConcurrentHashMap.) (StampedLock.)
            (AtomicLong.)))

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

(defn- place ^long [^long ticket]
  (bit-and ticket (dec (long ring-places))))

(defn put!
  "Has `waiter` wait for the answer to `ticket`; for [[registering]]."
  [^Pending p ^long ticket waiter]
  (let [^AtomicReferenceArray ring (.-ring p)
        at (unchecked-int (place ticket))]
    (if (.compareAndSet ring at nil claimed)
      (do (.setOpaque ^AtomicLongArray (.-tickets p) at ticket)
          (.setRelease ring at waiter))
      (.put ^ConcurrentHashMap (.-others p) ticket waiter))))

(defmacro registering
  "Evaluates `submit`, an expression that gives a ticket, and has `waiter` wait for its answer. Returns the ticket. When `submit`
  throws, or too many wait (ex-info `:raft/overloaded`), nothing is registered. A macro, since this is done for each entry."
  [p submit waiter]
  `(let [^Pending p# ~p]
     (enter! p#)
     (try
       (sharing p#
         (let [ticket# (long ~submit)]
           (put! p# ticket# ~waiter)
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

(defn- in-ring!
  "Takes who waits for `ticket` out of the ring; nil when it is not there. Who stands in a place waits for the ticket that was written
  before, so what is read between finding and taking the same one is that one's ticket."
  [^Pending p ^long ticket]
  (let [^AtomicReferenceArray ring (.-ring p)
        at     (unchecked-int (place ticket))
        waiter (.getAcquire ring at)]
    (when (and (some? waiter)
               (not (identical? claimed waiter))
               (= ticket (.getOpaque ^AtomicLongArray (.-tickets p) at))
               (.compareAndSet ring at waiter nil))
      waiter)))

(defn take!
  "Whoever waits for `ticket`, who then waits no more; nil when the ticket was answered before. Who gets a waiter
  answers it and reports [[settled!]]."
  [^Pending p ^long ticket]
  (or (in-ring! p ticket)
      (.remove ^ConcurrentHashMap (.-others p) ticket)
      (do (quiesce! p)
          (or (in-ring! p ticket)
              (.remove ^ConcurrentHashMap (.-others p) ticket)))))

(defn take-all!
  "All who still wait, as `[ticket waiter]` in the order of their tickets. For the end, when nothing is accepted any more."
  [^Pending p]
  (quiesce! p)
  (let [^AtomicReferenceArray ring (.-ring p)
        tickets (into (vec (.keySet ^ConcurrentHashMap (.-others p)))
                      (keep (fn [at] (when (.get ring (int at)) (.get ^AtomicLongArray (.-tickets p) (int at)))))
                      (range ring-places))]
    (->> (sort tickets)
         (keep (fn [ticket]
                 (when-let [waiter (take! p (long ticket))]
                   [ticket waiter])))
         vec)))
