(ns quorate.load.pace
  "When operations are due: at a rate, whatever became of the earlier ones (an open loop), or at once.

  With a rate, an operation's latency counts from the time at which it was due; what could not be sent then because the servers held up
  the earlier ones waits, and its wait is a part of its latency. Without it, only what was sent would be measured, and a server that
  stands still for a second would cost each connection one slow operation rather than all those that were due meanwhile.")

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def backlog-ns "What has been due for so long and could not be sent is given up and counted." 10000000000)
(def drain-ns "After the end, what was due before is still sent for so long." 5000000000)

(defprotocol Pace
  (due [pace]
    "When the operation of the caller is due, in nanoseconds; -1 when the time is over.")
  (idle [pace from to]
    "There was nothing to send from one time to the other: what would have been due then is due later.")
  (given-up [pace]
    "How many operations were due and not sent.")
  (behind-ns [pace]
    "How late the next operation is, in nanoseconds; 0 when it is not."))

(deftype AtOnce [^long end]
  Pace
  (due [_]
    (let [now (System/nanoTime)]
      (if (< now end) now -1)))
  (idle [_ _ _] nil)
  (given-up [_] 0)
  (behind-ns [_] 0))

(defn- place
  "When the nth operation since `base` is due."
  ^long [^long base ^double period-ns ^long n]
  (+ base (long (* n period-ns))))

(deftype AtRate [^double period-ns ^long end ^longs state]
  ;; state: base, number of the next operation since base, given up so far
  Pace
  (due [_]
    (locking state
      (let [now    (System/nanoTime)
            base   (aget state 0)
            n      (aget state 1)
            late   (- now (place base period-ns n))
            excess (if (< (long backlog-ns) late)
                     (long (/ (- late (long backlog-ns)) period-ns))
                     0)
            n      (+ n excess)
            at     (place base period-ns n)
            over?  (and (< at end) (< (+ end (long drain-ns)) now))
            lost   (if over? (long (/ (- end at) period-ns)) 0)]
        (aset state 1 (+ n lost (if over? 0 1)))
        (aset state 2 (+ (aget state 2) excess lost))
        (if (or over? (<= end at)) -1 at))))
  (idle [_ from to]
    (locking state
      (let [next-at (place (aget state 0) period-ns (aget state 1))
            later   (- (long to) (max (long from) next-at))]
        (when (pos? later)
          (aset state 0 (+ (aget state 0) later))))))
  (given-up [_]
    (locking state (aget state 2)))
  (behind-ns [_]
    (locking state
      (max 0 (- (System/nanoTime) (place (aget state 0) period-ns (aget state 1)))))))

(defn start
  "The pace of a run that begins now: `rate` operations a second, or nil for as many as there can be; for `seconds`, or nil for ever."
  [rate seconds]
  (let [now (System/nanoTime)
        end (if seconds (+ now (long (* 1e9 (double seconds)))) Long/MAX_VALUE)]
    (if rate
      (AtRate. (/ 1e9 (double rate)) end (long-array [now 0 0]))
      (AtOnce. end))))
