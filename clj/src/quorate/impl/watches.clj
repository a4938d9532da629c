(ns quorate.impl.watches
  "Leader watches: who wants to know when the leader changes, and what they are told, in fluree's shape.

  Each watch has a lane of its own: one that takes long holds up only its own events."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.errors :as errors]
            [quorate.impl.lanes :as lanes]
            [quorate.impl.report :as report]))

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
  "What a watch gets, without its `:key`. `change` is the engine's map with the user's server names; the states are raft states
  before and after."
  [change old-raft-state new-raft-state]
  {:event          (event-type (:event change))
   :cause          (:cause change)
   :message        (sentence change)
   :old-leader     (:old-leader change)
   :new-leader     (:new-leader change)
   :server         (:server change)
   :old-raft-state old-raft-state
   :new-raft-state new-raft-state})

(def ^:const watches-max "Leader watches of one node." 1024)

(defn- checked [k f event-type n]
  (when-not (or (nil? event-type) (event-types event-type))
    (throw (errors/error :raft/invalid (str "A leader watch is for :become-leader or :become-follower, not for "
                                            (pr-str event-type) "."))))
  (when-not (ifn? f)
    (throw (errors/error :raft/invalid (str "A leader watch must be a function, not " (pr-str f) "."))))
  (when (>= (long n) watches-max)
    (throw (errors/error :raft/overloaded (str "There are " watches-max " leader watches already; " (pr-str k) " is one too many.")
                         {:limit watches-max}))))

(defn add!
  "Has `f` called for changes of the leader from now on, for those of `event-type` only unless that is nil. Replaces the watch
  under `k`. Throws ex-info `:raft/invalid`, or `:raft/overloaded`."
  [{:keys [leader-watches pool]} k f event-type]
  (checked k f event-type (count (dissoc @leader-watches k)))
  (swap! leader-watches assoc k {:fn f, :event-type event-type, :lane (lanes/lane pool)})
  true)

(defn remove!
  "Ends the watch under `k`, if there is one; it gets nothing more, except what it is being called with."
  [{:keys [leader-watches]} k]
  (swap! leader-watches dissoc k)
  true)

(defn- present? [{:keys [leader-watches]} k watch]
  (identical? watch (get @leader-watches k)))

(defn- as-fluree
  "With `:compat :strict` the states are swapped where fluree/raft swaps them."
  [{:keys [config]} {:keys [event cause old-raft-state new-raft-state] :as told}]
  (if (and (= :strict (:compat config))
           (or (= :become-leader event) (= :request-votes cause)))
    (assoc told :old-raft-state new-raft-state, :new-raft-state old-raft-state)
    told))

(defn notify!
  "Has each of `watchers`, watches by key, that wants `event` called, unless it was replaced or removed meanwhile. What one
  throws is reported."
  [rt watchers event]
  (let [told (as-fluree rt event)]
    (doseq [[k {:keys [event-type lane] :as watch}] watchers
            :when (and (or (nil? event-type) (= event-type (:event event)))
                       (present? rt k watch))]
      (when (= :full (lanes/offer! lane (fn []
                                          (when (present? rt k watch)
                                            (report/reported [rt :watch {:key k}] ((:fn watch) (assoc told :key k)))))))
        (log/warn "The leader watch" k "does not keep up: an event was dropped:" (:message event))))))
