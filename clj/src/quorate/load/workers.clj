(ns quorate.load.workers
  "Threads that send operations, each over connections of its own, one operation at a time.

  What fails for a reason that another node or time can cure is tried again: on another node at once, and when none is left with growing
  pauses. A write whose outcome is not known is among them, because a PUT of the same value has no further effect."
  (:require [quorate.load.http :as http]
            [quorate.load.nodes :as nodes]
            [quorate.load.operation :as operation]
            [quorate.load.pace :as pace]
            [quorate.load.tally :as tally])
  (:import (java.io IOException)
           (java.net ConnectException NoRouteToHostException SocketTimeoutException UnknownHostException)
           (java.util.concurrent CountDownLatch ThreadLocalRandom TimeUnit)
           (java.util.concurrent.atomic AtomicBoolean AtomicLong)
           (java.util.concurrent.locks LockSupport)
           (quorate.load.operation Operation)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const first-pause-ms "The first pause when no node is left to try." 10)
(def ^:private ^:const longest-pause-ms 1000)
(def ^:private ^:const nap-ns "A thread that waits for its time looks so often whether all is over." 100000000)

(defn stopped?
  "Whether no further operation begins."
  [{:keys [^AtomicBoolean stop]}]
  (.get stop))

(defn stop!
  "Lets no further operation begin. `reason` is a sentence, or nil; the first one is kept."
  [{:keys [^AtomicBoolean stop why]} reason]
  (.set stop true)
  (swap! why #(or % reason)))

;; --- one attempt

(defn- kind-of
  "What a failed connection is called in the summary."
  [^IOException thrown]
  (cond (instance? SocketTimeoutException thrown)  "timeout"
        (instance? ConnectException thrown)        "connection refused"
        (instance? NoRouteToHostException thrown)  "no route to host"
        (instance? UnknownHostException thrown)    "unknown host"
        :else                                      "connection broken"))

(defn- close! [^objects connections ^long at]
  (when-let [connection (aget connections at)]
    (aset connections at nil)
    (http/close connection)))

(defn- open! [{:keys [nodes timeout-ms]} ^objects connections ^long at]
  (let [connection (http/connect (nth nodes at) timeout-ms)]
    (aset connections at connection)
    connection))

(defn- exchange!
  "Sends the operation to the node at `at`; the status. A connection that the server closed while nobody used it is no failure of the node:
  the operation goes over a fresh one then."
  ^long [{:keys [timeout-ms] :as run} ^objects connections ^long at ^Operation op]
  (let [kept (aget connections at)]
    (if-let [status (when kept
                      (try (http/exchange kept op timeout-ms)
                           (catch SocketTimeoutException thrown (throw thrown))
                           (catch IOException _
                             (close! connections at)
                             nil)))]
      (long status)
      (http/exchange (open! run connections at) op timeout-ms))))

(defn- answered? [^Operation op ^long status]
  (or (<= 200 status 299)
      (and (= 404 status) (not (.-write? op)))))

(defn- curable?
  "Whether another node, or time, can turn this status into another."
  [^long status]
  (or (<= 500 status 599) (= 408 status) (= 429 status)))

(defn- attempt!
  "Nil when the node at `at` answered; otherwise what was wrong, `:curable?` when it may be tried again."
  [{:keys [nodes tally] :as run} ^objects connections ^long at ^Operation op]
  (let [node-name (:name (nth nodes at))]
    (try
      (let [status (exchange! run connections at op)]
        (cond (not (answered? op status))
              {:kind     (str "status " status)
               :reason   (str node-name ": " (http/text (aget connections at)))
               :curable? (curable? status)
               :refused? (<= 400 status 499)}
              (= 404 status) (do (tally/absent! tally) nil)
              :else          nil))
      (catch IOException thrown
        (close! connections at)
        {:kind (kind-of thrown), :reason (str node-name ": " (or (ex-message thrown) (class thrown))), :curable? true}))))

;; --- one operation

(defn- pause-ms
  "How long to wait before the attempt of that number, when no node is left to try at once: some of it by chance."
  ^long [^long attempt]
  (let [most (min (long longest-pause-ms) (bit-shift-left (long first-pause-ms) (min attempt 10)))]
    (+ (quot most 2) (.nextLong (ThreadLocalRandom/current) (inc (quot most 2))))))

(defn- give-up!
  "Counts the operation as failed; too many in a row end the run."
  [{:keys [tally invalid ^AtomicLong failed-in-row ^long failed-in-row-max] :as run} ^Operation op {:keys [kind reason refused?]}]
  (if (and refused? (pos? (.-line op)))
    (invalid (.-line op) (str "is refused: " reason))
    (do (tally/failed! tally kind reason)
        (when (and (not refused?) (<= failed-in-row-max (.incrementAndGet failed-in-row)))
          (stop! run (str "Stopped: " failed-in-row-max " operations in a row could not be done."))))))

(defn- note-answer! [{:keys [nodes tally ^AtomicLong failed-in-row]} ^Operation op ^long at ^long due]
  (tally/answered! tally (.-write? op) (:name (nth nodes at)) (- (System/nanoTime) due))
  (when-not (zero? (.get failed-in-row))
    (.set failed-in-row 0)))

(defn- perform!
  "Sends the operation until it is answered, refused, or given up after the time for that."
  [{:keys [nodes tally ^long retry-ms] :as run} connections worker ^Operation op due]
  (let [due        (long due)
        give-up-at (+ (System/nanoTime) (* 1000000 retry-ms))]
    (loop [attempt 0]
      (let [at    (nodes/choose nodes worker attempt)
            wrong (attempt! run connections at op)]
        (if (nil? wrong)
          (note-answer! run op at due)
          (do
            (when (:curable? wrong)
              (nodes/leave-out (nth nodes at)))
            (let [pause (if (and (< attempt (count nodes)) (nodes/any-usable? nodes)) 0 (pause-ms attempt))]
              (cond (or (not (:curable? wrong))
                        (stopped? run)
                        (< give-up-at (+ (System/nanoTime) (* 1000000 pause)))) (give-up! run op wrong)
                    :else (do (tally/retried! tally (:kind wrong))
                              (when (pos? pause)
                                (Thread/sleep pause))
                              (recur (inc attempt)))))))))))

;; --- a thread

(defn- wait-until
  "Waits until the time has come; false when all is over before."
  [run ^long due]
  (loop []
    (let [left (- due (System/nanoTime))]
      (cond (stopped? run) false
            (pos? left)    (do (LockSupport/parkNanos (min left (long nap-ns)))
                               (recur))
            :else          true))))

(defn- send-one!
  "One operation, at its time; false when the time is over."
  [{:keys [pace ^AtomicLong under-way] :as run} connections worker ^Operation op]
  (try
    (when-let [^CountDownLatch after (.-after op)]
      (.await after))
    (let [due (long (pace/due pace))]
      (if (and (not (neg? due)) (wait-until run due))
        (do (.incrementAndGet under-way)
            (perform! run connections worker op due)
            (.decrementAndGet under-way)
            true)
        false))
    (finally
      (when-let [done (.-done op)]
        (done)))))

(defn- work
  "Sends one operation after the other until there are none, or all is over."
  [{:keys [source nodes] :as run} worker]
  (let [connections (object-array (count nodes))]
    (try
      (loop []
        (when-not (stopped? run)
          (when-let [op (operation/take-next source)]
            (when (send-one! run connections worker op)
              (recur)))))
      (catch IOException thrown
        (stop! run (str "The lines could not be read: " (ex-message thrown) ".")))
      (catch Throwable thrown
        (stop! run (str "The loader failed: " thrown ".")))
      (finally
        (run! #(close! connections %) (range (count nodes)))))))

(defn start
  "Starts `concurrency` threads that send what `source` has. Takes a map of

    :source :pace :tally    what to send, when, and where to count it
    :nodes                  of `nodes/start`
    :concurrency :timeout-ms :retry-ms
    :stop                   an AtomicBoolean; when it is true no further operation begins
    :invalid                a function of the number of a line that the servers refuse, and of why

  Returns the run, for [[stop!]], [[await-end]], [[why]] and [[under-way]]."
  [{:keys [concurrency] :as options}]
  (let [ended (CountDownLatch. (int concurrency))
        run   (assoc options
                     :ended ended
                     :why (atom nil)
                     :under-way (AtomicLong.)
                     :failed-in-row (AtomicLong.)
                     :failed-in-row-max (max 64 (* 2 (long concurrency))))]
    (dotimes [worker (long concurrency)]
      (doto (Thread. ^Runnable #(try (work run worker)
                                     (finally (.countDown ended)))
                     (str "quorate-load-" worker))
        (.setDaemon true)
        (.start)))
    run))

(defn await-end
  "Waits until all threads have ended, for so many milliseconds; whether they have."
  [{:keys [^CountDownLatch ended]} ms]
  (.await ended (long ms) TimeUnit/MILLISECONDS))

(defn why
  "Why the run was stopped, a sentence; nil when it was not."
  [run]
  @(:why run))

(defn under-way
  "Operations that are sent and not answered."
  ^long [run]
  (.get ^AtomicLong (:under-way run)))
