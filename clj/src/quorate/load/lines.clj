(ns quorate.load.lines
  "Operations from lines `key value`, split at the first space. Bytes are taken as they are.

  Lines are read when somebody wants one, so that whoever writes them waits for the servers; what is under way is bounded in bytes.
  A line waits for an earlier one of the same key."
  (:require [quorate.load.operation :as operation :refer [->Operation]])
  (:import (java.io ByteArrayOutputStream InputStream)
           (java.util Arrays)
           (java.util.concurrent ConcurrentHashMap CountDownLatch Semaphore)
           (java.util.concurrent.atomic AtomicBoolean)
           (java.util.concurrent.locks ReentrantLock)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def line-bytes-max
  "The longest line, in bytes: the largest value that a ring server takes, and the longest request line."
  (+ (* 8 1024 1024) 16384))

(def bytes-under-way-max "Bytes of lines that are read and not answered yet." (* 64 1024 1024))

(def ^:private buffer-bytes 65536)

(def ^:private ^:const waiting-ns
  "A line that took longer to come than this had to be waited for."
  1000000)

;; --- lines of a stream

(defprotocol ^:private Reader
  (next-line [reader]
    "The bytes of the next line, without its end; nil at the end of the stream, and `::long` for one that is too long.")
  (bytes-read [reader] "Bytes read so far."))

(defn- index-of-newline
  "Where the next line feed is, or `to`."
  ^long [^bytes buffer ^long from ^long to]
  (loop [at from]
    (if (and (< at to) (not= 10 (aget buffer at)))
      (recur (inc at))
      at)))

(defn- keep-part
  "Adds a part of a line to what came of it; false when that is too much."
  [^ByteArrayOutputStream carry ^bytes buffer ^long from ^long to]
  (if (<= (+ (.size carry) (- to from)) (long line-bytes-max))
    (do (.write carry buffer from (- to from))
        true)
    false))

(defn- finish
  "The whole line, of which `carry` holds all that fitted."
  [^ByteArrayOutputStream carry fits?]
  (if fits? (.toByteArray carry) ::long))

(deftype StreamReader [^InputStream from ^bytes buffer
                                 ^:unsynchronized-mutable ^long at ^:unsynchronized-mutable ^long end ^:volatile-mutable ^long total]
  Reader
  (next-line [_]
    (let [carry (ByteArrayOutputStream. 0)]
      (loop [begun? false, fits? true]
        (if (< at end)
          (let [start   at
                newline (index-of-newline buffer start end)
                ends?   (< newline end)]
            (set! at (if ends? (inc newline) end))
            (if (and ends? (not begun?))
              (Arrays/copyOfRange buffer start newline)
              (let [fits? (and fits? (keep-part carry buffer start newline))]
                (if ends?
                  (finish carry fits?)
                  (recur true (boolean fits?))))))
          (let [got (.read from buffer)]
            (if (neg? got)
              (when begun? (finish carry fits?))
              (do (set! at 0)
                  (set! end (long got))
                  (set! total (+ total got))
                  (recur begun? fits?))))))))
  (bytes-read [_] total))

;; --- operations of lines

(defn- first-space
  "Where the first space is, or -1."
  ^long [^bytes line]
  (loop [at 0]
    (cond (= at (alength line))   -1
          (= 32 (aget line at))   at
          :else                   (recur (inc at)))))

(defn- ordered
  "The operation of a line, which waits for the last one of the same key that is not over."
  [^ConcurrentHashMap latest ^Semaphore room ^bytes line number]
  (let [space  (first-space line)
        target (operation/path line 0 space)
        latch  (CountDownLatch. 1)
        after  (.put latest target latch)
        size   (alength line)]
    (->Operation true target line (inc space) (- size (inc space)) (long number) after
                 (fn []
                   (.remove latest target latch)
                   (.countDown latch)
                   (.release room size)))))

(defn- reason
  "What is wrong with a line; nil when nothing is."
  [line]
  (if (= ::long line)
    (str "is longer than " line-bytes-max " bytes")
    (let [space (first-space line)]
      (cond (neg? space)  "has no space"
            (zero? space) "has an empty key"))))

(defn- next-operation
  "Reads until there is a line that is right. `counter` holds the number of the last line."
  [reader ^longs counter latest ^Semaphore room {:keys [invalid waited]} ^AtomicBoolean closed]
  (loop []
    (when-not (.get closed)
      (let [asked (System/nanoTime)
            line  (next-line reader)
            came  (System/nanoTime)]
        (when (< waiting-ns (- came asked))
          (waited asked came))
        (when line
          (let [number (aset counter 0 (inc (aget counter 0)))]
            (if-let [wrong (reason line)]
              (do (invalid number wrong)
                  (recur))
              (do (.acquireUninterruptibly room (alength ^bytes line))
                  (ordered latest room line number)))))))))

(deftype Lines [^ReentrantLock lock reader counter latest room reports closed total-bytes]
  operation/Source
  (take-next [_]
    (.lock lock)
    (try (next-operation reader counter latest room reports closed)
         (finally (.unlock lock))))
  (share-done [_]
    ;; Without the lock: its holder may wait for a line, and a figure that is a moment old does for a bar.
    (when (pos? (long total-bytes))
      (min 1.0 (/ (double (bytes-read reader)) (double total-bytes))))))

(defn source
  "The lines of a stream as an `operation/Source`. `total-bytes` is how much there is, 0 when nobody knows. Calls `(invalid number reason)`
  for a line that is not right, and `(waited from to)`, in nanoseconds, when a line had to be waited for. After `closed`, an AtomicBoolean,
  is true no more lines are read."
  [^InputStream from total-bytes ^AtomicBoolean closed {:keys [_invalid _waited] :as reports}]
  (Lines. (ReentrantLock.) (StreamReader. from (byte-array buffer-bytes) 0 0 0) (long-array 1) (ConcurrentHashMap.)
          (Semaphore. (int bytes-under-way-max)) reports closed total-bytes))
