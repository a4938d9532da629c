(ns quorate.impl.rpc
  "The operations of fluree's events: `[operation data callback]`, by `invoke-rpc` or a channel."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.channels :as channels]
            [quorate.impl.closing :as closing]
            [quorate.impl.commands :as commands]
            [quorate.impl.courier :as courier]
            [quorate.impl.errors :as errors]
            [quorate.impl.members :as members]
            [quorate.impl.monitor :as monitor]
            [quorate.impl.node :as node]
            [quorate.impl.registered :as registered]
            [quorate.impl.report :as report]
            [quorate.impl.runner :as runner]
            [quorate.impl.wire :as wire])
  (:import (java.util.concurrent.atomic AtomicLong)
           (java.util.function BiConsumer)))

(set! *warn-on-reflection* true)

(def engine-operations
  "fluree's messages between servers. Our engine's own go inside `:quorate/message`, so nobody has any use for these."
  #{:append-entries :append-entries-response :request-vote :request-vote-response :install-snapshot
    :install-snapshot-response :config-change :config-change-response :config-change-commit :config-change-commit-response
    :initialize-config :new-command-timeout :timeout})

(def ^:private ^:const put-ms "How long an event waits for room on a channel." 5000)

(defn put!
  "Puts the event on the channel of events of `stub`, a map with `:config`. Returns and throws as [[channels/put!]]."
  [stub op data callback]
  (channels/put! (get-in stub [:config :event-chan]) [op data callback] put-ms [callback]))

(defn raft-state!
  "Passes the raft state to `callback`."
  [rt callback]
  (let [started (System/nanoTime)]
    (node/pass! rt callback (node/raft-state rt))
    (node/monitored! rt :raft-state nil started)
    true))

(defn register!
  "Has `callback` called with the result of the entry with `id` when that is applied here. See [[registered/register!]]."
  [rt id timeout-ms callback]
  (let [started    (System/nanoTime)
        timeout-ms (if (nil? timeout-ms) registered/default-ms timeout-ms)]
    (node/check-timeout timeout-ms)
    (when (nil? id)
      (throw (errors/error :raft/invalid "A callback is registered for the id of a command, which cannot be nil.")))
    (cond
      (not (node/closed? rt)) (registered/register! (:registered rt) id timeout-ms callback (partial node/pass! rt))
      (not (node/strict? rt)) (node/pass! rt callback (errors/error :raft/shutdown "Raft server shut down."
                                                                    {:operation :new-command, :id id})))
    (node/monitored! rt :register-callback [id timeout-ms] started)
    true))

(defn monitor!
  "Makes `f` the monitor; nil ends it. What is neither is logged and changes nothing, as in fluree."
  [rt f]
  (if (or (nil? f) (ifn? f))
    (when-not (node/closed? rt)
      (monitor/set! (:monitor rt) rt (:state-now rt) f (.get ^AtomicLong (:applied rt))))
    (log/error "A monitor must be a function or nil, not" (pr-str f)))
  true)

(defn- change-member! [rt op operation data callback]
  (let [started (System/nanoTime)]
    (members/operate! rt op data (fn [answer] (node/pass! rt callback answer)))
    (node/monitored! rt operation data started)))

(defn snapshot!
  "A CompletableFuture of the index of a snapshot that is taken now."
  ^java.util.concurrent.CompletableFuture [rt timeout-ms]
  (node/request! rt wire/snapshot :snapshot (byte-array 0) timeout-ms
                 (fn [payload] (.getLong (wire/buffer payload)))))

(defn- take-snapshot! [rt data callback]
  (let [started (System/nanoTime)]
    (.whenComplete (snapshot! rt (:default-command-timeout (:config rt)))
                   (reify BiConsumer
                     (accept [_ index failure]
                       (node/call! rt callback (or failure index)))))
    (node/monitored! rt :snapshot data started)))

(defn- close! [rt data callback]
  (.start (runner/daemon (str "quorate-close-" (:name rt))
                         (fn []
                           (log/info "Closing" (:name rt) "as it was asked to:" (pr-str data))
                           (closing/close! rt)
                           (node/call! rt callback :raft-closed)))))

(defn- no-such [op]
  (errors/error :raft/invalid
                (if (contains? engine-operations op)
                  (str "The operation " op " is between servers of fluree/raft; the engine's messages are :quorate/message.")
                  (str "There is no operation " (pr-str op) "."))
                {:operation op}))

(defn- operate! [rt op data callback wait?]
  (case op
    :quorate/message   (node/call! rt callback (courier/deliver! rt data))
    :new-command       (commands/take! rt data callback wait?)
    :raft-state        (raft-state! rt callback)
    :add-server        (change-member! rt :add op data callback)
    :remove-server     (change-member! rt :remove op data callback)
    :register-callback (let [[id timeout-ms] data] (register! rt id timeout-ms callback))
    :monitor           (monitor! rt data)
    :snapshot          (take-snapshot! rt data callback)
    :close             (close! rt data callback)
    (throw (no-such op))))

(defn- failed! [rt op callback failure]
  (if callback
    (try
      (node/pass! rt callback failure)
      (catch Exception e
        (report/report! rt op e)))
    (log/warn "The operation" op "failed:" (ex-message failure))))

(defn dispatch!
  "Carries out an event. Never throws, and waits for nothing, unless `wait?` and then only for room for a `:new-command`: what
  is wrong is passed to `callback`, or logged when that is nil. Returns true."
  [rt op data callback wait?]
  (cond
    (and (node/closed? rt) (node/strict? rt)) nil
    (and (node/closed? rt) (not (contains? #{:raft-state :close :register-callback :new-command} op)))
    (failed! rt op callback (errors/error :raft/shutdown "Raft server shut down." {:operation op}))
    :else
    (try
      (operate! rt op data callback wait?)
      (catch Throwable t
        (failed! rt op callback t))))
  true)

(defn event!
  "Carries out `event`, `[operation data callback]`, that came from a channel."
  [rt event]
  (if (sequential? event)
    (let [[op data callback] event]
      (dispatch! rt op data callback true))
    (log/warn "An event must be [operation data callback], not" (binding [*print-length* 8, *print-level* 3] (pr-str event)))))
