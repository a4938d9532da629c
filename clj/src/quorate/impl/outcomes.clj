(ns quorate.impl.outcomes
  "What became of an entry, by its id."
  (:require [quorate.impl.errors :as errors]
            [quorate.impl.node :as node]
            [quorate.impl.wire :as wire]))

(set! *warn-on-reflection* true)

(defn- id-bytes [id]
  (let [[_ node incarnation sequence] (when (string? id) (re-matches #"([0-9a-f]{1,16})\.(\d+)\.(\d+)" id))]
    (try
      (-> (wire/sink)
          (wire/u64! (Long/parseUnsignedLong node 16))
          (wire/u64! (Long/parseUnsignedLong incarnation))
          (wire/u64! (Long/parseUnsignedLong sequence))
          wire/built)
      (catch NumberFormatException _
        (throw (errors/error :raft/invalid (str (pr-str id) " is not the id of an entry.") {:id id}))))))

(defn outcome
  "`{:outcome :applied|:pending|:never|:unknown}`, applied with its `:index`. Throws ex-info `:raft/invalid` for an id that is
  none, `:raft/shutdown`."
  [rt id]
  (let [in (wire/buffer (node/control rt wire/op-outcome (id-bytes id)))]
    (case (long (.get in))
      1 {:outcome :pending}
      2 {:outcome :applied, :index (.getLong in)}
      3 {:outcome :never}
      {:outcome :unknown})))
