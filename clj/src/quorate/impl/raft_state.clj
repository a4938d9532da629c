(ns quorate.impl.raft-state
  "fluree's raft state, made of the engine's status."
  (:require [clojure.java.io :as io]
            [quorate.impl.config :as config]
            [quorate.impl.machine :as machine])
  (:import (java.io File)))

(set! *warn-on-reflection* true)

(defn log-file
  "Where the log is: the directory of its files, a java.io.File."
  ^File [config]
  (.getAbsoluteFile (io/file (:log-directory config) "group-0" "log")))

(defn- stats-of
  "What is known of the connection to a member, in fluree's keys. The engine does not count its messages one by one, so `:sent`
  and `:received` are nil."
  [{:keys [round-trip-us]}]
  {:sent             nil
   :received         nil
   :avg-response     (when round-trip-us (/ (double round-trip-us) 1000.0))
   :last-response-ms nil})

(defn- vote-of
  "A server's vote as far as this one knows: only its own."
  [rt {:keys [term voted-for]} server]
  (when (and (= server (:this-server rt)) (some? voted-for))
    [term (= voted-for server)]))

(defn- member-entry [rt {:keys [peers snapshot-index] :as status} {:keys [name address matched-log-index] :as member}]
  (let [peer (first (filter #(= address (:address %)) peers))]
    [name (merge (dissoc member :name)
                 {:vote           (vote-of rt status name)
                  :next-index     (:next-index member (when matched-log-index (inc (long matched-log-index))))
                  :match-index    matched-log-index
                  :snapshot-index (when (= name (:this-server rt)) snapshot-index)
                  :stats          (stats-of peer)})]))

(defn- servers [rt {:keys [members] :as status}]
  (into {}
        (map #(member-entry rt status %))
        (or (seq members) (map #(hash-map :name %) (config/names (:config rt))))))

(defn- in-order
  "The names of `members`, the configured ones first, as they are there."
  [config members]
  (let [configured (filter #(contains? members %) (config/names config))]
    (concat configured (remove (set configured) (keys members)))))

(defn- timing
  "The engine keeps its own timer: these say what it is set to, and when it would be over if it had just been set."
  [{:keys [timeout-ms heartbeat-ms]} {:keys [role]}]
  (let [ms (if (= :leader role) heartbeat-ms timeout-ms)]
    {:timeout nil, :timeout-ms ms, :timeout-at (+ (System/currentTimeMillis) (long ms))}))

(defn- when-set
  "What is only there while it is so."
  [{:keys [registered-ids pending-server monitor-fn]}]
  (let [ids (when registered-ids (registered-ids))
        change (some-> pending-server deref)
        f (when monitor-fn (monitor-fn))]
    (cond-> nil
      (seq ids) (assoc :command-callbacks ids)
      change    (assoc :pending-server change)
      f         (assoc :monitor-fn f))))

(defn- position
  "`:index`, `:commit` and `:latest-index` are the index that users see."
  [{:keys [role term leader index snapshot-index snapshot-term voted-for]}]
  {:status         role
   :leader         leader
   :term           term
   :index          index
   :commit         index
   :latest-index   index
   :snapshot-index (when (and snapshot-index (pos? (long snapshot-index))) snapshot-index)
   :snapshot-term  snapshot-term
   :voted-for      voted-for})

(defn raft-state
  "fluree's raft state out of `status`, a node's status with the user's server names. Its metadata lets it stand for the
  node."
  [rt status]
  (let [members (servers rt status)]
    (with-meta
      (merge {:id               (:id status)
              :watch-fns        (:leader-watches rt)
              :config           (vary-meta (:config rt) assoc :quorate.raft/runtime rt)
              :this-server      (:this-server rt)
              :other-servers    (vec (remove #{(:this-server rt)} (in-order (:config rt) members)))
              :log-file         (log-file (:config rt))
              :snapshot-pending (some-> (:machine rt) machine/pending-index)
              :servers          members
              :msg-queue        nil}
             (position status)
             (timing (:config rt) status)
             (when-set rt))
      {:quorate.raft/runtime rt})))
