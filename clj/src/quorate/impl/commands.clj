(ns quorate.impl.commands
  "Entries on their way to the log: checked, validated, encoded, submitted; or put on a channel, for a map that has only that."
  (:require [clojure.string :as str]
            [quorate.impl.channels :as channels]
            [quorate.impl.codec :as codec]
            [quorate.impl.errors :as errors]
            [quorate.impl.monitor :as monitor]
            [quorate.impl.node :as node]
            [quorate.impl.registered :as registered])
  (:import (java.util.concurrent.locks LockSupport)
           (quorate.impl.node Inside)))

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
  "Throws ex-info `:raft/invalid` when the user's `validate` does not let `entry` pass."
  [validate entry]
  (let [said (try (validate entry)
                  (catch Throwable t
                    (throw (refused (or (ex-message t) (.getName (class t))) t))))]
    (when (or (false? said) (string? said))
      (throw (refused (or said "") nil)))))

(defn- check-machine [^Inside rt]
  (when (nil? (.-machine rt))
    (throw (errors/error :raft/invalid "This node runs the key-value store: use quorate.kv."))))

(defn- pass-on!
  "Submits `entry`; returns its ticket."
  [rt entry id callback persist timeout-ms]
  (cond
    (some? id)     (node/submit-entry! rt (codec/encode-command id entry) callback persist id timeout-ms)
    (bytes? entry) (node/submit-bytes! rt (codec/check-bytes entry) callback persist timeout-ms)
    :else          (node/submit-entry! rt (codec/encode entry) callback persist nil timeout-ms)))

(defn- monitored!
  "As [[pass-on!]], and tells the monitor. Asking for an id that is the engine's costs a call of it."
  [rt entry id callback persist timeout-ms command-of]
  (let [started (System/nanoTime)
        ticket  (pass-on! rt entry id callback persist timeout-ms)]
    (node/monitored! rt :new-command
                     (command-of entry (if (nil? id) (node/entry-id rt ticket) id) timeout-ms callback)
                     started)))

(defn submit!
  "Submits `entry`, with the user's `id` unless that is nil; `persist`, which may be nil, gets true when the entry is on the disks of
  a majority, before `callback` gets the result. `(command-of entry id timeout-ms callback)` makes the command that a monitor sees.
  Returns true at once. Throws ex-info, and then the entry went nowhere."
  [^Inside rt entry id callback persist timeout-ms command-of]
  (node/check-timeout timeout-ms)
  (check-callback callback)
  (check-callback persist)
  (check-machine rt)
  (when-not (and (node/strict? rt) (node/closed? rt))
    (when-let [validate (.-validate rt)]
      (validate! validate entry))
    (if (monitor/on? (.-monitor rt))
      (monitored! rt entry id callback persist timeout-ms command-of)
      (pass-on! rt entry id callback persist timeout-ms)))
  true)

(defn submit-command!
  "[[submit!]] of `command`, `{:entry :id :timeout :callback}`; its `:timeout` may be nil."
  [rt {:keys [entry id timeout callback] :as command} persist]
  (submit! rt entry id callback persist (if (nil? timeout) registered/default-ms timeout)
           (fn [_ id timeout-ms _] (assoc command :id id, :timeout timeout-ms))))

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
                 (fn [] (submit-command! rt command persist)))
      (catch Exception e
        (node/pass! rt persist e)
        (node/pass! rt (:callback command) e)))))
