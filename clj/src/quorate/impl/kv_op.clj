(ns quorate.impl.kv-op
  "The key-value store's operations as bytes, and its answers as maps; the layouts are those of
  `native/engine/src/kv/op.rs`. A *coder* says how keys and values become bytes: typed ones, or bytes as they are."
  (:require [quorate.impl.codec :as codec]
            [quorate.impl.errors :as errors]
            [quorate.impl.keys :as keys]
            [quorate.impl.wire :as wire])
  (:import (java.nio ByteBuffer)
           (java.util Arrays)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

;; ------------------------------------------------------------------------------------------------------ coders

(def ^:const typed-space "First byte of every key that is a value of Clojure." 1)
(def ^:const raw-space "First byte of every key that is bytes." 2)

(defprotocol Coder
  (key-bytes [_ k])
  (prefix-bytes [_ prefix])
  (value-bytes [_ v])
  (key-of [_ bytes])
  (value-of [_ bytes]))

(def typed
  "Keys are strings, keywords, EDN scalars, vectors of them; values any EDN value or byte array."
  (reify Coder
    (key-bytes [_ k] (keys/encode typed-space k))
    (prefix-bytes [_ prefix] (keys/encode-prefix typed-space prefix))
    (value-bytes [_ v] (codec/encode v))
    (key-of [_ bytes] (keys/decode bytes))
    (value-of [_ bytes] (codec/decode bytes))))

(defn- check-bytes ^bytes [what x]
  (if (bytes? x)
    x
    (throw (errors/error :raft/invalid (str "A raw " what " must be a byte array, not " (pr-str (class x)) ".")))))

(defn- in-raw-space ^bytes [^bytes k]
  (let [out (byte-array (inc (alength k)))]
    (aset out 0 (unchecked-byte raw-space))
    (System/arraycopy k 0 out 1 (alength k))
    out))

(def raw
  "Keys and values are byte arrays."
  (reify Coder
    (key-bytes [_ k] (in-raw-space (check-bytes "key" k)))
    (prefix-bytes [_ prefix] (in-raw-space (if (nil? prefix) (byte-array 0) (check-bytes "prefix" prefix))))
    (value-bytes [_ v] (check-bytes "value" v))
    (key-of [_ bytes] (Arrays/copyOfRange ^bytes bytes 1 (alength ^bytes bytes)))
    (value-of [_ bytes] bytes)))

;; ------------------------------------------------------------------------------------------------ transactions

(def ^:const operations-max "Guards or writes of one transaction." 65535)

(defn- bad [what x]
  (throw (errors/error :raft/invalid (str (binding [*print-length* 8, *print-level* 3] (pr-str x)) " is not a " what ".")
                       {:operation x})))

(defn- revision! [out n guard]
  (when-not (nat-int? n)
    (bad "guard: a revision is a whole number from 0 on" guard))
  (wire/u64! out n))

(defn- shape! [what x length]
  (when-not (and (sequential? x) (= length (count x)))
    (bad what x)))

(defn- guard! [coder out guard]
  (let [[kind k x] (if (sequential? guard) guard (bad "guard" guard))
        number (case kind :exists 1, :absent 2, :value 3, :mod-revision 4, :create-revision 5
                     (bad "guard: [:exists k], [:absent k], [:value k v], [:mod-revision k n], [:create-revision k n]" guard))]
    (shape! "guard" guard (if (#{:exists :absent} kind) 2 3))
    (wire/blob! out (key-bytes coder k))
    (wire/u8! out number)
    (case kind
      :value                           (wire/blob! out (value-bytes coder x))
      (:mod-revision :create-revision) (revision! out x guard)
      nil)))

(defn- write! [coder out write]
  (let [[kind k v] (if (sequential? write) write (bad "write" write))]
    (case kind
      :put    (do (shape! "write" write 3)
                  (wire/u8! out 1)
                  (wire/blob! out (key-bytes coder k))
                  (wire/blob! out (value-bytes coder v)))
      :delete (do (shape! "write" write 2)
                  (wire/u8! out 2)
                  (wire/blob! out (key-bytes coder k)))
      (bad "write: [:put k v] or [:delete k]" write))))

(defn- each! [out what xs one!]
  (when-not (or (nil? xs) (sequential? xs))
    (bad (str "vector of " what) xs))
  (let [n (count xs)]
    (when (> n (long operations-max))
      (throw (errors/error :raft/too-large (str "A transaction has at most " operations-max " " what "; this one has " n ".")
                           {:limit operations-max})))
    (wire/u16! out n)
    (run! one! xs)))

(defn command
  "The bytes of a transaction: when all guards of `:if` hold, the writes of `:then`, otherwise those of `:else`. Throws
  ex-info `:raft/invalid`, `:raft/unreadable`, `:raft/too-large`."
  ^bytes [coder {:keys [if then else] :as txn}]
  (when-let [unknown (seq (remove #{:if :then :else} (clojure.core/keys txn)))]
    (bad (str "transaction: it has " (pr-str (first unknown)) ", not :if, :then or :else") txn))
  (let [out (wire/sink)]
    (wire/u8! out 1)
    (each! out "guards" if #(guard! coder out %))
    (each! out "writes" then #(write! coder out %))
    (each! out "writes" else #(write! coder out %))
    (wire/built out)))

(defn- flag [^ByteBuffer in]
  (not (zero? (.get in))))

(defn- found
  "A key's value with its revisions, nil when it is not there."
  [coder ^ByteBuffer in]
  (when (flag in)
    (let [created (.getLong in)
          changed (.getLong in)]
      {:value (value-of coder (wire/take-blob in)), :create-revision created, :mod-revision changed})))

(defn- results [^ByteBuffer in]
  (let [n (bit-and (.getShort in) 0xffff)]
    (loop [i 0, out []]
      (if (= i n)
        out
        (do (.get in)
            (recur (inc i) (conj out {:existed? (flag in)})))))))

(defn outcome
  "The answer to a [[command]]: `:succeeded? :revision :results`, one `{:existed? bool}` a write executed; when a guard failed
  `:failed-guard`, its position, and `:current`, what it found: nil, or `:value :create-revision :mod-revision`."
  [coder payload]
  (let [in         (wire/buffer payload)
        succeeded? (flag in)
        revision   (.getLong in)
        failed     (bit-and (.getShort in) 0xffff)
        failure    (when (not= failed 0xffff)
                     {:failed-guard failed, :current (found coder in)})]
    (merge {:succeeded? succeeded?, :revision revision}
           failure
           {:results (results in)})))

;; ------------------------------------------------------------------------------------------------------- reads

(defn get-request ^bytes [coder consistency k]
  (-> (wire/sink) (wire/u8! consistency) (wire/u8! 1) (wire/blob! (key-bytes coder k)) wire/built))

(defn get-answer
  "nil, or `:value :revision :create-revision :mod-revision`."
  [coder payload]
  (let [in       (wire/buffer payload)
        revision (.getLong in)]
    (some-> (found coder in) (assoc :revision revision))))

(defn scan-request ^bytes [coder consistency prefix {:keys [after limit keys-only?] :as opts}]
  (let [out (wire/sink)]
    (-> out (wire/u8! consistency) (wire/u8! 2) (wire/blob! (prefix-bytes coder prefix)))
    (if (contains? opts :after)
      (-> out (wire/u8! 1) (wire/blob! (key-bytes coder after)))
      (wire/u8! out 0))
    (-> out (wire/u32! limit) (wire/u8! (if keys-only? 1 0)) wire/built)))

(defn- scanned [coder ^ByteBuffer in keys-only?]
  (let [k       (key-of coder (wire/take-blob in))
        created (.getLong in)
        changed (.getLong in)
        value   (wire/take-blob in)]
    (cond-> {:key k, :create-revision created, :mod-revision changed}
      (not keys-only?) (assoc :value (value-of coder value)))))

(defn scan-answer
  "`:revision :entries :more?`, and `:next`, the last key, when there are more."
  [coder keys-only? payload]
  (let [in       (wire/buffer payload)
        revision (.getLong in)
        more?    (flag in)
        n        (bit-and (.getInt in) 0xffffffff)
        entries  (loop [i 0, out []]
                   (if (= i n)
                     out
                     (recur (inc i) (conj out (scanned coder in keys-only?)))))]
    (cond-> {:revision revision, :entries entries, :more? more?}
      (and more? (seq entries)) (assoc :next (:key (peek entries))))))

(defn count-request ^bytes [coder consistency prefix]
  (-> (wire/sink) (wire/u8! consistency) (wire/u8! 3) (wire/blob! (prefix-bytes coder prefix)) wire/built))

(defn count-answer [payload]
  (let [in (wire/buffer payload)]
    (.getLong in)
    (.getLong in)))

;; ----------------------------------------------------------------------------------------------------- watches

(defn watch-request ^bytes [coder from-revision prefix? k]
  (-> (wire/sink)
      (wire/u64! from-revision)
      (wire/u8! (if prefix? 0 1))
      (wire/blob! (if prefix? (prefix-bytes coder k) (key-bytes coder k)))
      wire/built))

(defn revision-of
  "The revision that an event is about."
  ^long [^bytes event]
  (.getLong (wire/buffer event) 1))

(defn event
  "An event of a watch as a map with `:type`."
  [coder ^bytes bytes]
  (let [in   (wire/buffer bytes)
        kind (long (.get in))
        n    (.getLong in)]
    (case kind
      1 (let [k       (key-of coder (wire/take-blob in))
              created (.getLong in)]
          {:type :put, :key k, :value (value-of coder (wire/take-blob in)), :revision n, :create-revision created})
      2 {:type :delete, :key (key-of coder (wire/take-blob in)), :revision n}
      3 {:type :compacted, :oldest n}
      4 {:type :progress, :revision n}
      {:type :unknown, :kind kind})))
