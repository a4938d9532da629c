(ns quorate.impl.loops
  "The two threads of a node that poll the engine. They parse, look up who waits, and hand on; user code runs on them only
  where it is their very task (the state machine, on the apply thread)."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.errors :as errors]
            [quorate.impl.machine :as machine]
            [quorate.impl.pending :as pending]
            [quorate.impl.records :as records]
            [quorate.impl.runner :as runner]
            [quorate.impl.session :as session]
            [quorate.impl.wire :as wire])
  (:import (java.nio ByteBuffer)
           (java.util ArrayList)
           (java.util.concurrent.atomic AtomicLong)
           (quorate.impl Records)
           (quorate.impl.pending Immediate)
           (quorate.impl.records Entry)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const buffer-bytes "First size of a poll's buffer." (* 1024 1024))
(def ^:private ^:const poll-wait-ms "How long one poll waits for a record." 1000)
(def ^:private ^:const retry-wait-ms "Pause after a poll that failed, so that a broken engine is no busy loop." 100)
(def ^:private ^:const gathered-max "Outcomes gathered before they go to the callbacks thread, twice: each is two objects." 512)
(def ^:private ^:const outcomes-wait-ns "Outcomes gathered this long go to the callbacks thread." 1000000)

(def ^:private ^:const log-lines-max "With so many tasks waiting on the watches' thread, log lines are dropped." 4096)

(defn- fresh-buffer ^ByteBuffer [handle queue ^long bytes]
  (let [buffer (ByteBuffer/allocateDirect bytes)]
    (session/attach! handle queue buffer)
    buffer))

(defn- poll-loop
  "Polls `queue` until it is closed. `acknowledged` is asked before each poll; `(take! buffer n)` gets what one brought,
  and returns true when the queue is closed."
  [handle queue acknowledged take!]
  (loop [^ByteBuffer buffer (fresh-buffer handle queue buffer-bytes)]
    (let [n (long (session/poll! handle queue (acknowledged) poll-wait-ms))]
      (cond
        (zero? n)  (recur buffer)
        (= n -1)   nil
        (neg? n)   (recur (fresh-buffer handle queue (- n)))
        :else      (when-not (take! buffer n)
                     (recur buffer))))))

(defn- survives!
  "Calls `f`; true when it returned, false when it threw, which is logged unless the session is closed anyway."
  [{:keys [closed? name]} what f]
  (try
    (f)
    true
    (catch Throwable t
      (when-not (closed?)
        (log/error t "The" what "thread of" name "failed."))
      false)))

;; ---------------------------------------------------------------------------------------------------- outcomes

;; An outcome that is no result.
(deftype ^:private Failed [ticket code message])

(defn- answer! [waiter outcome]
  (if (instance? Failed outcome)
    (pending/failed! waiter (.-ticket ^Failed outcome) (.-code ^Failed outcome) (.-message ^Failed outcome))
    (pending/done! waiter outcome)))

(defn- answer-one! [pending waiter outcome]
  (runner/guarded "A callback threw." (answer! waiter outcome))
  (pending/settled! pending 1))

(defn- answer-all! [pending ^objects batch]
  (let [n (alength batch)]
    (loop [i 0]
      (when (< i n)
        (answer-one! pending (aget batch i) (aget batch (inc i)))
        (recur (+ i 2))))))

(defn- settle!
  "Answers `outcomes`, waiters each with its outcome behind it, in order, on the callbacks thread; here when that has ended, for an
  answer that comes late is better than none."
  [{:keys [callbacks pending]} ^ArrayList outcomes]
  (when-not (.isEmpty outcomes)
    (let [batch (.toArray outcomes)
          run!  (fn [] (answer-all! pending batch))]
      (.clear outcomes)
      (when-not (runner/offer! callbacks run!)
        (run!)))))

(defn- outcome! [pending ^ArrayList outcomes ^long ticket outcome]
  (when-let [waiter (pending/take! pending ticket)]
    (if (instance? Immediate waiter)
      (do (answer! waiter outcome)
          (pending/settled! pending 1))
      (doto outcomes (.add waiter) (.add outcome)))))

;; ------------------------------------------------------------------------------------------------------ events

(defn- completed! [{:keys [pending]} outcomes ticket status ^bytes payload]
  (outcome! pending outcomes ticket
            (if (zero? (long status))
              payload
              (Failed. ticket status (String. payload java.nio.charset.StandardCharsets/UTF_8)))))

(defn- engine-log! [level ^String target message]
  (let [logger (str "quorate.engine." (.replace target "::" "."))]
    (case (long level)
      1 (log/log logger :error nil message)
      2 (log/log logger :warn nil message)
      3 (log/log logger :info nil message)
      4 (log/log logger :debug nil message)
      (log/log logger :trace nil message))))

(defn- event-sink [node outcomes]
  (let [{:keys [watches on-leader on-watch on-datagram on-ask]} node]
    (reify records/Events
      (completion! [_ ticket status payload]
        (completed! node outcomes ticket status payload))
      (leader! [_ text]
        (on-leader text))
      (log! [_ level target message]
        (when (< (runner/backlog watches) log-lines-max)
          (runner/offer! watches (fn [] (engine-log! level target message)))))
      (watch! [_ watch event]
        (on-watch watch event))
      (datagram! [_ server bytes]
        (on-datagram server bytes))
      (asked! [_ ticket from question]
        (on-ask ticket from question)))))

(defn- poll-events! [{:keys [handle] :as node} outcomes sink]
  (poll-loop handle wire/events-queue (constantly 0)
             (fn [buffer n]
               (try (records/dispatch-events! buffer n sink)
                    (finally (settle! node outcomes))))))

(defn start-events!
  "Starts the thread that takes completions, leader events, watch events and log lines of `node`: a map with `:handle :name
  :closed?` (a function), `:callbacks` and `:watches` (runners), `:pending`, and, called on this thread, so that they must not
  block: `:on-leader` (EDN text), `:on-watch` (a watch's number and the event), `:on-datagram` (a server's name and bytes),
  `:on-ask` (a ticket, a server's name, bytes). After a failure it goes on with the next poll. Returns the thread."
  ^Thread [{:keys [closed?] :as node}]
  (let [outcomes (ArrayList.)
        sink     (event-sink node outcomes)]
    (doto (runner/daemon (str "quorate-events-" (:name node))
                         (fn []
                           (when-not (or (survives! node "events" #(poll-events! node outcomes sink))
                                         (closed?))
                             (Thread/sleep retry-wait-ms)
                             (recur))))
      (.start))))

;; ------------------------------------------------------------------------------------------------------- apply

(defn- answer-snapshot!
  "Tells the engine that the snapshot request `ticket` is done, or why not."
  [{:keys [handle closed?]} op ticket failure]
  (try
    (session/control handle op (wire/snapshot-answer ticket (some-> failure machine/said)))
    (catch Exception e
      (when-not (closed?)
        ;; The engine has given up waiting for it, and asks again.
        (log/debug e "The engine did not take the answer to a snapshot request.")))))

(defn- log-failure
  "A warning; with a stack only when the failure is not one of ours, which say all in their sentence. That of a user's function
  was reported already."
  [what ^Throwable failure]
  (case (:error (ex-data failure))
    :raft/snapshot (log/debug (str what ": " (ex-message failure)))
    nil            (log/warn failure what)
    (log/warn (str what ": " (ex-message failure)))))

(defn- write-snapshot! [{:keys [machine] :as node} ticket path]
  (machine/begin-snapshot! machine path
                           (fn [failure]
                             (when failure
                               (log-failure (str "No snapshot was written by " (:name node)) failure))
                             (answer-snapshot! node wire/op-snapshot-done ticket failure))))

(defn- install-snapshot! [{:keys [machine on-installed ^AtomicLong applied] :as node} ticket index path]
  (let [failure (machine/failure-of #(machine/replace! machine path))]
    (if failure
      (log-failure (str "The snapshot " path " could not be installed by " (:name node)) failure)
      (.set applied (long index)))
    (on-installed index failure)
    (answer-snapshot! node wire/op-install-done ticket failure)))

(defn- gathered!
  "Hands the outcomes on when there are many or they have been waiting. `since` holds when the first one was gathered."
  [node ^ArrayList outcomes ^longs since]
  (let [now (System/nanoTime)]
    (when (= 2 (.size outcomes))
      (aset since 0 now))
    (when (or (>= (.size outcomes) gathered-max)
              (> (- now (aget since 0)) outcomes-wait-ns))
      (settle! node outcomes))))

(def ^:private within-a-snapshot
  "The entry took effect, but its result is not known here: this node caught up by a snapshot.")

(defn- outcome-of [^Entry entry result]
  (if (identical? machine/result-unknown result)
    (Failed. (.-sequence entry) errors/timeout-code within-a-snapshot)
    result))

(defn- apply-sink [{:keys [machine ^AtomicLong applied on-applied pending] :as node} ^ArrayList outcomes]
  (let [since (long-array 1)]
    (reify records/Applies
      (entry! [_ entry]
        (let [^Entry entry entry
              result (machine/step! machine entry)]
          (.setRelease applied (.-index entry))
          (on-applied (.-body entry) result)
          (when (.-local? entry)
            (outcome! pending outcomes (.-sequence entry) (outcome-of entry result))
            (when-not (.isEmpty outcomes)
              (gathered! node outcomes since)))))
      (snapshot! [_ ticket _index path] (write-snapshot! node ticket path))
      (install! [_ ticket index path] (install-snapshot! node ticket index path)))))

(defn- poll-applies! [{:keys [handle ^AtomicLong applied on-progress] :as node} outcomes sink]
  (let [in (Records.)]
    (poll-loop handle wire/apply-queue (fn [] (.get applied))
               (fn [buffer n]
                 (try (records/dispatch-applies! in buffer n sink)
                      (finally (settle! node outcomes)
                               (on-progress)))))))

(defn start-applies!
  "Starts the thread that applies entries to `:machine`; `:applied` (AtomicLong) is the index of the last one. It calls, and they
  must not block: `(:on-applied body result)` after each entry, `(:on-progress)` after each batch, `(:on-installed index
  failure)` after each attempt to install a snapshot, `failure` being nil or a Throwable. A failure of
  its own (not of the state machine, which cannot fail it) ends it and is kept in the atom `:problem`: going on would
  leave out an entry. The engine then sees the lag and refuses submissions. Returns the thread."
  ^Thread [{:keys [problem] :as node}]
  (let [outcomes (ArrayList.)
        sink     (apply-sink node outcomes)]
    (doto (runner/daemon (str "quorate-apply-" (:name node))
                         (fn []
                           (when-not (survives! node "apply" #(poll-applies! node outcomes sink))
                             (reset! problem "Applying entries stopped after a failure of Quorate itself; see the log. Restart the node."))))
      (.start))))
