(ns quorate.ring.store
  "What the ring server needs of a store. Keys and values are byte arrays; a revision is a whole number that grows with
  every change.")

(set! *warn-on-reflection* true)

(defprotocol Store
  (fetch [store k consistency]
    "A CompletableFuture of `{:value bytes :revision n}`, or of nil when the key is absent. `consistency` is
    `:linearizable`, `:lease` or `:local`.")
  (transact [store txn]
    "Applies `{:if [...] :then [...] :else [...]}` at one revision; a CompletableFuture of `{:succeeded? bool
    :revision n}`: whether every guard held, so that `:then` was written rather than `:else`. Guards are
    `[:mod-revision k n]`, `[:absent k]`, `[:exists k]`; writes are `[:put k v]`, `[:delete k]`.")
  (status [store]
    "What this node knows of itself and of the cluster, as a map.")
  (metrics [store]
    "The node's own metrics in Prometheus' text format; nil when it has none."))
