(ns quorate.ring.kv-store
  "The ring server's store on `quorate.kv`: a node of this process, replicated and durable."
  (:require [quorate.kv :as kv]
            [quorate.raft :as raft]
            [quorate.ring.store :as store])
  (:import (java.util.concurrent CompletableFuture)
           (java.util.function Function)))

(set! *warn-on-reflection* true)

(defn- found
  "The store's shape of what `raw-get` found."
  [{:keys [value mod-revision] :as entry}]
  (when entry
    {:value value, :revision mod-revision}))

(defrecord KvStore [kv timeout-ms]
  store/Store
  (fetch [_ k consistency]
    (.thenApply ^CompletableFuture (kv/raw-get kv k {:consistency consistency, :timeout-ms timeout-ms})
                (reify Function (apply [_ entry] (found entry)))))
  (transact [_ txn]
    (kv/raw-txn! kv txn {:timeout-ms timeout-ms}))
  (status [_]
    (raft/status kv))
  (metrics [_]
    (raft/metrics kv)))

(defn open
  "Opens the node that the configuration describes, with `:servers` the raft address of every server by name. Throws an
  ex-info with `:error` and one sentence when the directory is locked, the raft port used, or the configuration
  impossible."
  [{:keys [name servers data-dir join? insecure? tls command-timeout-ms]}]
  (->KvStore (kv/open {:this-server   name
                       :servers       servers
                       :log-directory data-dir
                       :join?         join?
                       :tls           tls
                       :insecure      insecure?})
             command-timeout-ms))

(defn close
  "Closes the node. Does nothing when `store` is nil."
  [store]
  (when store
    (kv/close (:kv store))))
