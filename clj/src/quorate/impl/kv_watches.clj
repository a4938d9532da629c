(ns quorate.impl.kv-watches
  "Watches of the key-value store on this side of the bridge: a bounded queue each, emptied on the watches' thread.

  The engine bounds what waits for a poll, but the polling thread always polls; so a watch whose function does not keep up
  has its bound here. What is beyond it is left out, and that is an event: `{:type :compacted :oldest n}`, the same as the
  engine's for a watch from a revision too long ago. After it the watch goes on with the changes from `n`."
  (:require [quorate.impl.kv-op :as kv-op]
            [quorate.impl.node :as node]
            [quorate.impl.pending :as pending]
            [quorate.impl.runner :as runner]
            [quorate.impl.wire :as wire])
  (:import (java.util ArrayDeque)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:const events-max "Events of one watch that wait for its function." 16384)
(def ^:const event-bytes-max "Bytes of them." (* 64 1024 1024))

(defprotocol Inbox
  (put! [_ event] "Queues `event`, or notes that it is lost. Returns true when nobody is emptying the queue yet.")
  (take! [_] "The next event, a map for a loss, or nil, and then nobody is emptying the queue any more."))

(deftype Queue [^ArrayDeque events
                ^:unsynchronized-mutable ^long size
                ^:unsynchronized-mutable ^long lost-to
                ^:unsynchronized-mutable busy]
  Inbox
  (put! [this event]
    (locking this
      (let [n (alength ^bytes event)]
        (if (or (>= lost-to 0) (>= (.size events) events-max) (> (+ size n) event-bytes-max))
          (set! lost-to (max lost-to (kv-op/revision-of event)))
          (do (.add events event)
              (set! size (+ size n))))
        (when-not busy
          (set! busy true)
          true))))
  (take! [this]
    (locking this
      (if-let [event (.poll events)]
        (do (set! size (- size (alength ^bytes event)))
            event)
        (if (>= lost-to 0)
          (let [oldest (inc lost-to)]
            (set! lost-to -1)
            {:type :compacted, :oldest oldest})
          (do (set! busy false)
              nil))))))

(defn queue
  "An empty queue of one watch."
  []
  (Queue. (ArrayDeque.) 0 -1 false))

(defn- drain! [q coder f]
  (loop []
    (when-let [event (take! q)]
      (runner/guarded "A watch threw."
                      (f (if (map? event) event (kv-op/event coder event))))
      (recur))))

(defn- deliverer
  "What takes the events of one watch, on the events thread."
  [rt coder f]
  (let [q (queue)]
    (fn [event]
      (when (put! q event)
        (runner/offer! (:watches rt) (fn [] (drain! q coder f)))))))

(defn watch!
  "Starts a watch; returns its number. Throws ex-info."
  [rt coder k prefix? from-revision f]
  (let [request  (kv-op/watch-request coder from-revision prefix? k)
        deliver! (deliverer rt coder f)]
    (pending/shared (:pending rt)
                    (fn []
                      (let [watch (.getLong (wire/buffer (node/control rt wire/op-watch request)))]
                        (swap! (:kv-watches rt) assoc watch deliver!)
                        watch)))))

(defn unwatch!
  "Ends a watch. Returns true; false when there is none of that number."
  [rt watch]
  (let [[before _] (swap-vals! (:kv-watches rt) dissoc watch)]
    (if (contains? before watch)
      (do (node/control rt wire/op-unwatch (wire/built (wire/u64! (wire/sink) watch)))
          true)
      false)))
