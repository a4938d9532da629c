(ns quorate.impl.commands
  "Entries on their way to the log: checked, validated, encoded, submitted; or put on a channel, for a map that has only that."
  (:require [clojure.string :as str]
            [quorate.impl.channels :as channels]
            [quorate.impl.codec :as codec]
            [quorate.impl.errors :as errors]
            [quorate.impl.monitor :as monitor]
            [quorate.impl.node :as node]
            [quorate.impl.registered :as registered])
  (:import (java.util.concurrent.locks LockSupport)))

(set! *warn-on-reflection* true)

(def ^:private ^:const stub-timeout-ms "For a map with a channel and no :default-command-timeout (fluree's number)." 5000)
(def ^:private ^:const retry-ns "Pause before an entry from a channel is tried again while too many are under way." 1000000)

(defn runtime
  "The running inside of `node`: a node, something that has one, or a raft state of it; nil for anything else."
  [node]
  (or (:quorate.raft/runtime node)
      (:quorate.raft/runtime (meta node))
      (:quorate.raft/runtime (meta (:config node)))))

(defn default-timeout
  "How long an entry that is given to `node` may take."
  [node]
  (:default-command-timeout (:config (or (runtime node) node)) stub-timeout-ms))

(defn- check-callback [callback]
  (when-not (or (nil? callback) (ifn? callback))
    (throw (errors/error :raft/invalid (str "The callback must be a function or nil, not " (pr-str callback) ".")))))

(defn- refused [why cause]
  (errors/error :raft/invalid (str "The entry was refused" (when-not (str/blank? why) (str ": " why)) ".") nil cause))

(defn- validate!
  "Throws ex-info `:raft/invalid` when the user's `:validate` does not let `entry` pass."
  [{:keys [config]} entry]
  (when-let [validate (:validate config)]
    (let [said (try (validate entry)
                    (catch Throwable t
                      (throw (refused (or (ex-message t) (.getName (class t))) t))))]
      (when (or (false? said) (string? said))
        (throw (refused (or said "") nil))))))

(defn- check-machine [rt]
  (when-not (:machine rt)
    (throw (errors/error :raft/invalid "This node runs the key-value store: use quorate.kv."))))

(defn- encoded ^bytes [id entry]
  (if (nil? id)
    (codec/encode entry)
    (codec/encode-command id entry)))

(defn- send! [rt {:keys [entry id callback timeout] :as command} persist]
  (validate! rt entry)
  (let [started (System/nanoTime)
        ticket  (node/submit-entry! rt (encoded id entry) callback persist id timeout)]
    ;; Asking for the id costs a call of the engine: only when somebody wants it.
    (when (monitor/on? (:monitor rt))
      (node/monitored! rt :new-command
                       (if (nil? id) (assoc command :id (node/entry-id rt ticket)) command)
                       started))
    true))

(defn submit!
  "Submits `command`, `{:entry :id :timeout :callback}`; `persist`, which may be nil, gets true when the entry is on the disks of
  a majority, before the callback gets the result. Returns true at once. Throws ex-info, and then the entry went nowhere."
  [rt {:keys [timeout callback] :as command} persist]
  (let [command (if (nil? timeout) (assoc command :timeout registered/default-ms) command)]
    (node/check-timeout (:timeout command))
    (check-callback callback)
    (check-callback persist)
    (check-machine rt)
    (if (and (node/closed? rt) (node/strict? rt))
      true
      (send! rt command persist))))

(defn put!
  "Puts `command` on the command channel of `stub`, a map with `:config`, as fluree does. Returns and throws
  as [[channels/put!]]; throws ex-info `:raft/invalid` too."
  [stub {:keys [timeout callback] :as command} persist]
  (let [ch         (get-in stub [:config :command-chan])
        timeout-ms (if (nil? timeout) stub-timeout-ms timeout)]
    (when (nil? ch)
      (throw (errors/error :raft/invalid (str "This is not a node of quorate.raft: " (pr-str (class stub)) "."))))
    (node/check-timeout timeout-ms)
    (check-callback callback)
    (channels/put! ch [:new-command command persist] timeout-ms [persist callback])))

(defn- patiently
  "Calls `f`, again and again while that throws `:raft/overloaded`, for up to `timeout-ms`."
  [timeout-ms f]
  (let [end (+ (System/nanoTime) (* 1000000 (long timeout-ms)))]
    (loop []
      (let [result (try (f)
                        (catch clojure.lang.ExceptionInfo e
                          (if (and (= :raft/overloaded (:error (ex-data e))) (< (System/nanoTime) end))
                            ::again
                            (throw e))))]
        (if (identical? ::again result)
          (do (LockSupport/parkNanos retry-ns)
              (recur))
          result)))))

(defn take!
  "Submits `command`, a map with `:entry` that came as an event. Whatever would be thrown is passed to `persist` and the
  callback, except that with `wait?` it waits for room, up to the command's timeout."
  [rt command persist wait?]
  (let [timeout (:timeout command)]
    (try
      (when-not (and (map? command) (contains? command :entry))
        (throw (errors/error :raft/invalid "A command must be a map with :entry.")))
      (patiently (if (and wait? (pos-int? timeout)) timeout 0)
                 (fn [] (submit! rt command persist)))
      (catch Exception e
        (node/pass! rt persist e)
        (node/pass! rt (:callback command) e)))))
