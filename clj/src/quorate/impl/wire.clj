(ns quorate.impl.wire
  "The bytes that cross the bridge: little-endian numbers, `u32` lengths. The layouts are those of
  `native/engine/src/session.rs`, whose numbers are named here."
  (:import (java.io ByteArrayOutputStream)
           (java.nio ByteBuffer ByteOrder)
           (java.nio.charset StandardCharsets)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

;; kinds of submissions
(def ^:const command 1)
(def ^:const read-kind 2)
(def ^:const barrier 3)
(def ^:const membership 4)
(def ^:const snapshot 5)
(def ^:const ask 6)

;; synchronous operations
(def ^:const op-status 1)
(def ^:const op-outcome 2)
(def ^:const op-snapshot-done 3)
(def ^:const op-install-done 4)
(def ^:const op-watch 5)
(def ^:const op-unwatch 6)
(def ^:const op-metrics 7)
(def ^:const op-identity 8)
(def ^:const op-answered 9)
(def ^:const op-deliver 10)

;; the two queues
(def ^:const events-queue 1)
(def ^:const apply-queue 2)

(def ^:const answer-bytes-max
  "Largest answer to a question, in bytes (ASK_ANSWER_BYTES_MAX in limits.rs)."
  (- (* 64 1024 1024) 1024))

(def consistencies
  "How fresh a read is, and its number."
  {:linearizable 0, :lease 1, :local 2})

(defn utf-8 ^bytes [^String text]
  (.getBytes text StandardCharsets/UTF_8))

(defn buffer
  "A little-endian view of `bytes`."
  ^ByteBuffer [^bytes bytes]
  (.order (ByteBuffer/wrap bytes) ByteOrder/LITTLE_ENDIAN))

(defn take-bytes
  "The next `n` bytes of `in`, copied."
  ^bytes [^ByteBuffer in ^long n]
  (let [out (byte-array n)]
    (.get in out)
    out))

(defn take-text
  "The next `n` bytes of `in` as UTF-8."
  ^String [^ByteBuffer in ^long n]
  (String. ^bytes (take-bytes in n) StandardCharsets/UTF_8))

(defn take-blob
  "The next bytes of `in`, with their `u32` length before them."
  ^bytes [^ByteBuffer in]
  (take-bytes in (bit-and (.getInt in) 0xffffffff)))

;; ---------------------------------------------------------------------------------------------------- building

(defn sink
  "Where a request is put together."
  ^ByteArrayOutputStream []
  (ByteArrayOutputStream. 64))

(defn u8! [^ByteArrayOutputStream out ^long n]
  (.write out (unchecked-int n))
  out)

(defn u16! [^ByteArrayOutputStream out ^long n]
  (u8! out n)
  (u8! out (unsigned-bit-shift-right n 8)))

(defn u32! [^ByteArrayOutputStream out ^long n]
  (u16! out n)
  (u16! out (unsigned-bit-shift-right n 16)))

(defn u64! [^ByteArrayOutputStream out ^long n]
  (u32! out n)
  (u32! out (unsigned-bit-shift-right n 32)))

(defn raw! [^ByteArrayOutputStream out ^bytes bytes]
  (.write out bytes 0 (alength bytes))
  out)

(defn blob! [^ByteArrayOutputStream out ^bytes bytes]
  (u32! out (alength bytes))
  (raw! out bytes))

(defn built ^bytes [^ByteArrayOutputStream out]
  (.toByteArray out))

(defn snapshot-answer
  "The body of op-snapshot-done and op-install-done: the `ticket`, and the reason of a failure, nil when all went well."
  ^bytes [^long ticket reason]
  (-> (sink) (u64! ticket) (u8! (if reason 0 1)) (raw! (utf-8 (str reason))) built))

(defn ask-body
  "The body of a question, bytes, to the node named `server`."
  ^bytes [^String server ^bytes question]
  (-> (sink) (blob! (utf-8 server)) (raw! question) built))

(defn answered-body
  "The body of op-answered for the question `ticket`: the answer when `ok?`, else the sentence that says why not, as bytes."
  ^bytes [^long ticket ok? ^bytes payload]
  (-> (sink) (u64! ticket) (u8! (if ok? 1 0)) (raw! payload) built))

(defn membership-body
  "The body of a membership change: `operation` :add, :remove, :transfer or :add-learner."
  ^bytes [operation ^String server ^String address]
  (-> (sink)
      (u8! (case operation :add 1, :remove 2, :transfer 3, :add-learner 4))
      (blob! (utf-8 server))
      (blob! (utf-8 address))
      built))
