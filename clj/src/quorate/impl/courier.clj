(ns quorate.impl.courier
  "The user's own transport: the engine's messages, opaque bytes, go out by `:send-rpc-fn` and come in by `invoke-rpc`.

  Each server that is sent to has a thread of its own, `quorate-send-NAME-SERVER`, and a bounded queue, so that a call that
  blocks holds up what goes to that server and nothing else. What finds its queue full is dropped and counted: the
  engine sends again what is lost, and asks for no answer, so an answer to a message means nothing and may be nil, late, doubled
  or missing."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.conventions :as conventions]
            [quorate.impl.errors :as errors]
            [quorate.impl.machine :as machine]
            [quorate.impl.report :as report]
            [quorate.impl.runner :as runner]
            [quorate.impl.session :as session]
            [quorate.impl.wire :as wire])
  (:import (java.nio ByteBuffer)
           (java.util.concurrent ConcurrentHashMap)
           (java.util.concurrent.atomic AtomicBoolean AtomicLong)
           (java.util.function Function)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def operation "The operation that the engine's messages travel under." :quorate/message)
(def ^:const messages-max "Messages that wait for one server's thread." 1024)
(def ^:const bytes-max "Bytes of messages that wait for all of them together." (* 64 1024 1024))
(def ^:private ^:const report-every-ns "A `:send-rpc-fn` that throws is reported this often at most." 1000000000)

(deftype Courier [send! state-of runtime ^ConcurrentHashMap lanes ^AtomicLong waiting ^AtomicLong dropped ^AtomicLong reported
                  ^AtomicBoolean stopped])

(defn- ignored
  "What the user's transport gets to answer with."
  [& _]
  nil)

(defn- sender
  "`(fn [raft-state server data])` that calls the user's function in its convention."
  [{:keys [send-rpc-fn] :as config}]
  (case (conventions/convention config :send-rpc-fn)
    :source (fn [raft-state server data] (send-rpc-fn raft-state server operation data ignored))
    :readme (fn [_ server data] (send-rpc-fn server [operation data] ignored))))

(defn courier
  "The courier of the runtime `rt`: `:config :name :servers`, and what [[report/report!]] needs. `(state-of)` makes the raft state
  that a `:send-rpc-fn` gets; it is called for each message. nil when the configuration's transport is not the user's."
  [{:keys [config] :as rt} state-of]
  (when (= :user (:transport config))
    (Courier. (sender config) state-of rt (ConcurrentHashMap.) (AtomicLong.) (AtomicLong.)
              (AtomicLong. (- (System/nanoTime) (long report-every-ns))) (AtomicBoolean.))))

(defn dropped
  "Messages that were dropped since the user's transport did not take them fast enough."
  ^long [^Courier c]
  (.get ^AtomicLong (.-dropped c)))

(defn- lane [^Courier c server]
  (.computeIfAbsent ^ConcurrentHashMap (.-lanes c) server
                    (reify Function
                      (apply [_ server]
                        (runner/runner (str "quorate-send-" (:name (.-runtime c)) "-" server) messages-max)))))

(defn- failed! [^Courier c server t]
  (let [^AtomicLong reported (.-reported c)
        now  (System/nanoTime)
        last (.get reported)]
    (if (and (>= (- now last) (long report-every-ns))
             (.compareAndSet reported last now))
      (report/report! (.-runtime c) :send-rpc-fn t {:server server})
      (log/debug ":send-rpc-fn threw again:" (machine/said t)))))

(defn- hand-over! [^Courier c text ^bytes data]
  (let [server (get (:servers (.-runtime c)) text text)]
    (try
      (when-not (.get ^AtomicBoolean (.-stopped c))
        ((.-send! c) ((.-state-of c)) server data))
      (catch Throwable t
        (failed! c server t))
      (finally
        (.addAndGet ^AtomicLong (.-waiting c) (- (alength data)))))))

(defn- drop! [^Courier c ^bytes data]
  (.addAndGet ^AtomicLong (.-waiting c) (- (alength data)))
  (let [n (.incrementAndGet ^AtomicLong (.-dropped c))]
    ;; At 1, 2, 4, 8 ...: often enough to be seen.
    (when (zero? (bit-and n (dec n)))
      (log/warn (str "The :send-rpc-fn of " (:name (.-runtime c)) " does not keep up: " n " messages were dropped so far.")))))

(defn send!
  "Sends `data` to the server that the engine calls `text`, or drops it. Never waits."
  [^Courier c text ^bytes data]
  (let [waiting (.addAndGet ^AtomicLong (.-waiting c) (alength data))]
    (when-not (and (<= waiting (long bytes-max))
                   (not (.get ^AtomicBoolean (.-stopped c)))
                   (runner/offer! (lane c text) (fn [] (hand-over! c text data))))
      (drop! c data))))

(defn stop!
  "Sends no more, and waits up to `wait-ms` for each thread that is still in the user's function. nil is fine."
  [^Courier c wait-ms]
  (when c
    (.set ^AtomicBoolean (.-stopped c) true)
    (run! #(runner/stop! % wait-ms) (.values ^ConcurrentHashMap (.-lanes c)))))

;; ----------------------------------------------------------------------------------------------------- arriving

(defn- rubbish [data]
  (errors/error :raft/invalid (str "A message must be a byte array, a ByteBuffer or a sequence of bytes, not "
                                   (if (nil? data) "nil" (.getName (class data))) ".")))

(defn- byte-of [x]
  (if (and (int? x) (<= -128 (long x) 255))
    (unchecked-byte (long x))
    (throw (errors/error :raft/invalid (str "A message's bytes must be whole numbers from -128 to 255, not " (pr-str x) ".")))))

(defn- as-bytes
  "`data` as a byte array: the forms that the codec of a user's transport may make of one."
  ^bytes [data]
  (cond
    (bytes? data)                   data
    (instance? ByteBuffer data)     (let [view (.duplicate ^ByteBuffer data)]
                                      (wire/take-bytes view (.remaining view)))
    (or (sequential? data)
        (instance? java.util.List data)) (byte-array (map byte-of data))
    :else                           (throw (rubbish data))))

(defn deliver!
  "Takes in a message that another server's `:send-rpc-fn` was given: `data` as a byte array, a ByteBuffer, or a sequence of
  whole numbers from -128 to 255. Returns true, or an ex-info: `:raft/invalid` for anything else, for bytes that are no message
  and for a node whose transport is not the user's; `:raft/shutdown`. Never throws, and never waits."
  [{:keys [handle]} data]
  (try
    (session/control handle wire/op-deliver (as-bytes data))
    true
    (catch clojure.lang.ExceptionInfo e
      e)))
