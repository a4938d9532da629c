(ns quorate.impl.monitor
  "What `monitor-raft` sees: the events of one node, each with the raft state before and after it.

  Events go to a bounded queue with a thread of its own, where the states are made and the user's function is called. Without
  a monitor an event costs one volatile read."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.report :as report]
            [quorate.impl.runner :as runner])
  (:import (java.util.concurrent.atomic AtomicLong AtomicReference)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const events-max "Events that wait for a monitor; further ones are dropped and counted." 4096)
(def ^:private ^:const join-ms "How long the end of a monitor waits for its last events." 2000)

(deftype Monitor [f runner last-state ^AtomicLong dropped])
(deftype Slot [^AtomicReference monitor ^AtomicLong applied])

(defn slot
  "Where the monitor of a node is; there is none yet."
  []
  (Slot. (AtomicReference.) (AtomicLong.)))

(defn- monitor ^Monitor [^Slot slot]
  (.get ^AtomicReference (.-monitor slot)))

(defn monitor-fn
  "The user's function; nil when there is none."
  [slot]
  (some-> (monitor slot) .-f))

(defn on?
  "True when there is a monitor."
  [^Slot slot]
  (some? (.get ^AtomicReference (.-monitor slot))))

(defn dropped
  "How many events the present monitor has missed; nil without one."
  [slot]
  (when-let [m (monitor slot)]
    (.get ^AtomicLong (.-dropped ^Monitor m))))

(defn- without-config [state]
  (with-meta (dissoc state :config) nil))

(defn- tell! [rt ^Monitor m state-now event]
  (let [after (without-config (state-now))]
    (report/reported [rt :monitor {:event (first (:event event))}]
      ((.-f m) (assoc event :before @(.-last-state m), :after after)))
    (reset! (.-last-state m) after)))

(defn- took [^long started-ns]
  (format "%.3fms" (/ (double (- (System/nanoTime) started-ns)) 1e6)))

(defn event!
  "Tells the monitor, if there is one, of the event `[op data]`, which began at `started-ns` (System/nanoTime) and is over.
  `state-now` makes a raft state. Never waits."
  [^Slot slot rt state-now op data started-ns]
  (when-let [m (monitor slot)]
    (let [event {:time (took started-ns), :instant (System/currentTimeMillis), :event [op data]}]
      (when-not (runner/offer! (.-runner ^Monitor m) (fn [] (tell! rt m state-now event)))
        (when (= 1 (.incrementAndGet ^AtomicLong (.-dropped ^Monitor m)))
          (log/warn "The monitor does not keep up: events are dropped; see :monitor-dropped of the status."))))))

(defn progress!
  "The entries up to `applied` have been applied, of a batch. What [[event!]] gets is :append-entries on a follower and
  :append-entries-response on the leader, as fluree's users saw commits move."
  [^Slot slot rt state-now leadership applied]
  (when (on? slot)
    (let [applied (long applied)
          before  (.getAndSet ^AtomicLong (.-applied slot) applied)]
      (when (> applied before)
        (let [{:keys [status term leader]} leadership]
          (event! slot rt state-now
                  (if (= :leader status) :append-entries-response :append-entries)
                  {:term term, :leader-id leader, :prev-log-index before, :leader-commit applied, :count (- applied before)}
                  (System/nanoTime)))))))

(defn set!
  "Makes `f` the monitor, in place of the one before; nil ends it. `applied` is the index of the last entry applied."
  [^Slot slot rt state-now f applied]
  (let [started (System/nanoTime)
        next-m  (when f
                  (Monitor. f (runner/runner (str "quorate-monitor-" (:name rt)) events-max)
                            (atom (without-config (state-now))) (AtomicLong.)))]
    (.set ^AtomicLong (.-applied slot) (long applied))
    (when-let [before (.getAndSet ^AtomicReference (.-monitor slot) next-m)]
      (runner/stop! (.-runner ^Monitor before) 0))
    (event! slot rt state-now :monitor f started)))

(defn stop!
  "Ends the monitor, after the events that it still has."
  [^Slot slot]
  (when-let [m (.getAndSet ^AtomicReference (.-monitor slot) nil)]
    (runner/stop! (.-runner ^Monitor m) join-ms)))
