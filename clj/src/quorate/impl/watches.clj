(ns quorate.impl.watches
  "Leader watches: who wants to know when the leader changes, and what they are told, in fluree's shape."
  (:require [clojure.tools.logging :as log]))

(set! *warn-on-reflection* true)

(def event-types
  "What a watch can be limited to."
  #{:become-leader :become-follower})

(def default-key
  "The key of the watch that the configuration's `:leader-change-fn` becomes."
  :fluree.raft/default)

(defn event-type
  "The event of fluree's for one of the engine's: this server became the leader, or it is a follower (of a new leader, or of
  none)."
  [engine-event]
  (if (= :become-leader engine-event) :become-leader :become-follower))

(defn- sentence [{:keys [event new-leader term]}]
  (cond
    (= :become-leader event) (str "This server leads in term " term ".")
    (some? new-leader)       (str (name new-leader) " leads in term " term ".")
    :else                    (str "No leader is known in term " term ".")))

(defn leader-event
  "The nine-key map for a watch, without its `:key`. `change` is the engine's map with the user's server names; the states
  are raft states before and after."
  [change old-raft-state new-raft-state]
  {:event          (event-type (:event change))
   :cause          (:cause change)
   :message        (sentence change)
   :old-leader     (:old-leader change)
   :new-leader     (:new-leader change)
   :server         (:server change)
   :old-raft-state old-raft-state
   :new-raft-state new-raft-state})

(defn notify!
  "Calls each of `watches`, `{key {:f :event-type}}`, that wants `event`. One that throws is logged."
  [watches event]
  (doseq [[k {:keys [f event-type]}] watches
          :when (or (nil? event-type) (= event-type (:event event)))]
    (try
      (f (assoc event :key k))
      (catch Throwable t
        (log/error t "The leader watch" k "threw.")))))
