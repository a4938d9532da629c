(ns quorate.impl.records
  "Takes apart what a poll brought: `length u32 · type u8 · fields`, one record after the other."
  (:require [quorate.impl.wire :as wire])
  (:import (java.nio ByteBuffer ByteOrder)
           (quorate.impl Records Span)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(defprotocol Events
  "Who takes the records of the events queue."
  (completion! [_ ticket status payload] "`ticket` is answered: `status` 0 and the result, or a code and its message, as bytes.")
  (leader! [_ text] "Leadership changed; an EDN map as text.")
  (log! [_ level target message] "A log line of the engine; level 1 (error) to 5 (trace).")
  (watch! [_ watch event] "An event of a key-value watch, as bytes.")
  (datagram! [_ server bytes] "Carry `bytes` to the node named `server`; losing them is allowed.")
  (asked! [_ ticket from question] "The node named `from` asks this host `question`, bytes."))

(defprotocol Applies
  "Who takes the records of the apply queue."
  (entry! [_ entry] "Apply this [[Entry]]; its body is there until this returns.")
  (snapshot! [_ ticket index path] "Write the state as of `index` to `path`.")
  (install! [_ ticket index path] "Replace the state by the file `path`, which is as of `index`."))

(deftype Entry [^long index ^long term ^long time-ms ^long seed local? ^long node ^long incarnation ^long sequence ^Span body])

(defn- rest-of ^long [^ByteBuffer in ^long end]
  (- end (.position in)))

(defn- short-text
  "The next text of `in`, with its `u16` length before it."
  ^String [^ByteBuffer in]
  (wire/take-text in (bit-and (.getShort in) 0xffff)))

(defn- completion [^ByteBuffer in ^long end to]
  (let [ticket (.getLong in)
        status (long (.get in))]
    (completion! to ticket status (wire/take-bytes in (rest-of in end)))))

(defn- log-line [^ByteBuffer in ^long end to]
  (let [level  (long (.get in))
        target (short-text in)]
    (log! to level target (wire/take-text in (rest-of in end)))))

(defn- event
  "Hands the event record that ends at `end` to `to`. Returns true when it was the last of the queue."
  [^ByteBuffer in ^long end to]
  (case (long (.get in))
    1 (do (completion in end to) false)
    2 (do (leader! to (wire/take-text in (rest-of in end))) false)
    3 (do (log-line in end to) false)
    4 (let [watch (.getLong in)]
        (watch! to watch (wire/take-bytes in (rest-of in end)))
        false)
    5 true
    6 (let [server (short-text in)]
        (datagram! to server (wire/take-bytes in (rest-of in end)))
        false)
    7 (let [ticket (.getLong in), from (short-text in)]
        (asked! to ticket from (wire/take-bytes in (rest-of in end)))
        false)
    false))

(defn- begin! [^ByteBuffer in ^long n]
  (.order in ByteOrder/LITTLE_ENDIAN)
  (.limit in (int n))
  (.position in 0))

(defn- end-of-next
  "Where the record ends whose length is next in `in`."
  ^long [^ByteBuffer in]
  (let [length (bit-and (.getInt in) 0xffffffff)]
    (+ (.position in) length)))

(defn dispatch-events!
  "Hands each event in the first `n` bytes of `in` to `to`, [[Events]]. A type that this version does not know is passed over.
  Returns true when the queue is closed."
  [^ByteBuffer in n to]
  (let [n (long n)]
    (begin! in n)
    (loop [last? false]
      (if (< (.position in) n)
        (let [end   (end-of-next in)
              last? (or (event in end to) last?)]
          (.position in (int end))
          (recur last?))
        (boolean last?)))))

(defn- entry ^Entry [^Records in]
  (Entry. (.u64 in 0) (.u64 in 8) (.u64 in 16) (.u64 in 24) (not (zero? (.u8 in 32))) (.u64 in 33) (.u64 in 41) (.u64 in 49)
          (.rest in 57)))

(defn dispatch-applies!
  "Hands each record of the apply queue in the first `n` bytes of `buffer` to `to`, [[Applies]]; `in` holds them meanwhile. A type
  that this version does not know is passed over. Returns true when the queue is closed."
  [^Records in ^ByteBuffer buffer n to]
  (.take in buffer (int n))
  (loop [last? false]
    (if (.next in)
      (case (long (.type in))
        1 (do (entry! to (entry in)) (recur last?))
        2 (do (snapshot! to (.u64 in 0) (.u64 in 8) (.text in 16)) (recur last?))
        3 (do (install! to (.u64 in 0) (.u64 in 8) (.text in 16)) (recur last?))
        4 (recur true)
        (recur last?))
      last?)))
