(ns quorate.impl.channels
  "fluree's two channels, for those who put their events there themselves.

  core.async is used when it is on the class path, and is not needed otherwise: this namespace finds its functions when it is
  first asked for one."
  (:require [clojure.java.io :as io]
            [clojure.tools.logging :as log]
            [quorate.impl.errors :as errors]
            [quorate.impl.runner :as runner])
  (:import (java.util Collections Map WeakHashMap)
           (java.util.concurrent Semaphore TimeUnit)))

(set! *warn-on-reflection* true)

(def ^:const puts-max
  "Events that wait for a taker of one channel because of us; core.async itself allows 1,024 puts and asserts at the next."
  512)

;; ----------------------------------------------------------------------------------------------------- core.async

(defn- present? []
  (some io/resource ["clojure/core/async.clj" "clojure/core/async__init.class"]))

(defn- found []
  (when (present?)
    (try
      (into {}
            (map (fn [s] [(keyword (name s)) (requiring-resolve s)]))
            '[clojure.core.async/chan clojure.core.async/promise-chan clojure.core.async/put! clojure.core.async/<!!
              clojure.core.async/close!])
      (catch Throwable t
        (log/warn t "core.async is on the class path and does not load: there are no channels.")
        nil))))

(def ^:private async (delay (found)))

(defn available?
  "True when core.async is there."
  []
  (some? @async))

(defn- call [k & args]
  (if-let [f (get @async k)]
    (apply f args)
    (throw (errors/error :raft/invalid "This needs org.clojure/core.async on the class path."))))

(defn promise-chan
  "A channel that keeps the first value. Throws ex-info `:raft/invalid` without core.async."
  []
  (call :promise-chan))

(defn give!
  "Puts `x` on `ch`, a promise channel."
  [ch x]
  (call :put! ch x))

;; ------------------------------------------------------------------------------------------------------- putting

(def ^:private ^Map permits
  "For each channel that we put on, how many more puts may wait."
  (Collections/synchronizedMap (WeakHashMap.)))

(defn- permits-of ^Semaphore [ch]
  (locking permits
    (or (.get permits ch)
        (let [fresh (Semaphore. puts-max)]
          (.put permits ch fresh)
          fresh))))

(defn- full [timeout-ms]
  (errors/error :raft/overloaded (str "The channel took no event for " timeout-ms " ms: " puts-max " wait for its taker.")
                {:limit puts-max}))

(defn- refuse-all! [callbacks event]
  (doseq [callback callbacks :when callback]
    (runner/guarded "A callback threw."
      (callback (errors/error :raft/shutdown "Raft server shut down." {:operation (first event)}))))
  false)

(defn put!
  "Puts `event` on `ch` and returns true, at once unless [[puts-max]] events wait already; then it waits for up to
  `timeout-ms`, and throws ex-info `:raft/overloaded`. When the channel is closed each of `callbacks`, functions or nil, gets
  ex-info `:raft/shutdown` here and now, and it returns false: who puts from a go block must not be torn out of it."
  [ch event timeout-ms callbacks]
  (when (nil? ch)
    (throw (errors/error :raft/invalid "There is neither a node nor a channel.")))
  (let [permits (permits-of ch)]
    (when-not (.tryAcquire permits (long timeout-ms) TimeUnit/MILLISECONDS)
      (throw (full timeout-ms)))
    (or (call :put! ch event (fn [_taken?] (.release permits)))
        (refuse-all! callbacks event))))

;; ------------------------------------------------------------------------------------------------------ consuming

(defn with-channels
  "`config` with `:command-chan` and `:event-chan`, made when they are absent; as it is without core.async. Throws ex-info
  `:raft/config` for a channel that cannot be used because core.async is not there."
  [config]
  (cond
    (available?)                                    (merge {:command-chan (call :chan), :event-chan (call :chan)} config)
    (or (:command-chan config) (:event-chan config)) (throw (errors/error :raft/config
                                                                          ":command-chan and :event-chan need org.clojure/core.async on the class path."
                                                                          {:key :command-chan}))
    :else                                           config))

(defn- consume! [ch handle!]
  (loop []
    (when-some [event (call :<!! ch)]
      (runner/guarded "An event from a channel failed." (handle! event))
      (recur))))

(defn start!
  "Starts a daemon thread for each channel of `config`, which hands each event to `handle!`, until the channel is closed."
  [server {:keys [command-chan event-chan]} handle!]
  (doseq [[ch what] [[command-chan "commands"] [event-chan "event-chan"]]
          :when ch]
    (.start (runner/daemon (str "quorate-" what "-" server) (fn [] (consume! ch handle!))))))

(defn close!
  "Closes the channels of `config`."
  [{:keys [command-chan event-chan]}]
  (doseq [ch [command-chan event-chan] :when ch]
    (call :close! ch)))
