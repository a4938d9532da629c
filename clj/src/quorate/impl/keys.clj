(ns quorate.impl.keys
  "Keys as bytes: equal keys are always the same bytes, and bytes sort as keys do.

  After FoundationDB's tuple layer. Each element begins with a tag, texts and vectors end with a zero byte (a zero inside a
  text is `00 ff`), so that what a prefix of a text or of a vector encodes to is a prefix of the bytes.

      02                                   nil
      03 · 04                              false · true
      10 length-and-sign, magnitude        integers of any size, 1 and 1N alike
      11 ieee bits, sign flipped           doubles and floats; -0.0 is 0.0
      12 sign, exponent, digits, 00        BigDecimals; 1.0M and 1.00M are equal in Clojure, so here
      13 integer, integer                  ratios (grouped by numerator, not by value)
      20 text 00                           strings, by code point
      21 · 22  (01 | 02 text 00) text 00   keywords · symbols: namespace or none, name
      23 u16                               chars
      24 16 bytes                          UUIDs
      25 i64 · 26 i64 u32                  java.util.Date, ms · java.time.Instant, seconds and nanoseconds
      27 bytes 00                          byte arrays, by content
      30 elements 00                       vectors, lists, sequences: equal in Clojure, so here

  Everything else is refused: maps, sets, records, NaN (which does not equal itself), and what is no value."
  (:require [quorate.impl.errors :as errors])
  (:import (clojure.lang BigInt Keyword Ratio Sequential Symbol)
           (java.io ByteArrayOutputStream)
           (java.math BigDecimal BigInteger)
           (java.nio ByteBuffer CharBuffer)
           (java.nio.charset CharacterCodingException CodingErrorAction StandardCharsets)
           (java.time Instant)
           (java.util Date UUID)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const depth-max "Vectors in keys may be nested so deep." 32)
(def ^:private ^:const bytes-max "Longest key, in bytes; what is longer is no key but a value." 65536)

(defn- refuse! [x because]
  (throw (errors/error :raft/unreadable
                       (str "This cannot be a key: " (when (some? x) (.getName (class x))) "; " because ".")
                       {:class (class x)})))

;; ---------------------------------------------------------------------------------------------------- encoding

(defn- u8! [^ByteArrayOutputStream out ^long n]
  (.write out (unchecked-int n)))

(defn- big-endian! [^ByteArrayOutputStream out ^long n ^long bytes]
  (loop [shift (* 8 (dec bytes))]
    (when (>= shift 0)
      (u8! out (unsigned-bit-shift-right n shift))
      (recur (- shift 8)))))

(defn- raw! [^ByteArrayOutputStream out ^bytes bytes]
  (.write out bytes 0 (alength bytes)))

(defn- escaped! [^ByteArrayOutputStream out ^bytes bytes]
  (dotimes [i (alength bytes)]
    (let [b (aget bytes i)]
      (u8! out b)
      (when (zero? b) (u8! out 0xff)))))

(defn- utf-8
  "The bytes of `text`; refuses lone surrogates, which UTF-8 cannot carry and the default would make a question mark."
  ^bytes [^String text]
  (try
    (let [encoded (.encode (.. StandardCharsets/UTF_8 newEncoder
                               (onMalformedInput CodingErrorAction/REPORT)
                               (onUnmappableCharacter CodingErrorAction/REPORT))
                           (CharBuffer/wrap text))
          out     (byte-array (.remaining encoded))]
      (.get encoded out)
      out)
    (catch CharacterCodingException _
      (refuse! text "it has half of a surrogate pair"))))

(defn- text! [out text]
  (escaped! out (utf-8 text))
  (u8! out 0))

(defn- complement!
  "Turns every bit of `bytes`, in place."
  [^bytes bytes]
  (dotimes [i (alength bytes)]
    (aset bytes i (unchecked-byte (bit-not (aget bytes i))))))

(defn- magnitude ^bytes [^BigInteger n]
  (let [bytes (.toByteArray (.abs n))]
    (if (and (> (alength bytes) 1) (zero? (aget bytes 0)))
      (java.util.Arrays/copyOfRange bytes 1 (alength bytes))
      bytes)))

(defn- integer!
  "Length and sign in one byte, 0x80 for zero; a length of 100 bytes or more follows in four. The magnitude of a negative
  one is complemented, so that it sorts the other way."
  [out ^BigInteger n]
  (let [sign  (.signum n)
        bytes (if (zero? sign) (byte-array 0) (magnitude n))
        size  (alength bytes)
        short (min size 100)]
    (u8! out (+ 0x80 (* sign short)))
    (when (= short 100)
      (big-endian! out (if (neg? sign) (bit-not size) size) 4))
    (when (neg? sign) (complement! bytes))
    (raw! out bytes)))

(defn- flipped
  "The bits of a signed number or a double so that they sort as unsigned ones."
  ^long [^long bits]
  (bit-xor bits Long/MIN_VALUE))

(defn- double! [out ^double d]
  (when (Double/isNaN d)
    (refuse! d "NaN does not equal itself"))
  (let [bits (Double/doubleToLongBits (+ d 0.0))]
    (big-endian! out (if (neg? bits) (bit-not bits) (flipped bits)) 8)))

(defn- decimal!
  "Sign, then exponent and digits of `0.digits × 10^exponent`, complemented as a whole for negatives."
  [out ^BigDecimal d]
  (let [sign (.signum d)]
    (u8! out (inc sign))
    (when-not (zero? sign)
      (let [plain    (.stripTrailingZeros (.abs d))
            exponent (- (long (.precision plain)) (long (.scale plain)))
            body     (ByteArrayOutputStream.)]
        (big-endian! body (flipped exponent) 8)
        (raw! body (.getBytes (str (.unscaledValue plain)) StandardCharsets/US_ASCII))
        (u8! body 0)
        (let [bytes (.toByteArray body)]
          (when (neg? sign) (complement! bytes))
          (raw! out bytes))))))

(defn- number! [out ^Number n]
  (cond
    (or (instance? Long n) (instance? Integer n) (instance? Short n) (instance? Byte n))
    (do (u8! out 0x10) (integer! out (BigInteger/valueOf (.longValue n))))

    (instance? BigInt n)     (do (u8! out 0x10) (integer! out (.toBigInteger ^BigInt n)))
    (instance? BigInteger n) (do (u8! out 0x10) (integer! out n))
    (or (instance? Double n) (instance? Float n)) (do (u8! out 0x11) (double! out (.doubleValue n)))
    (instance? BigDecimal n) (do (u8! out 0x12) (decimal! out n))
    (instance? Ratio n)      (do (u8! out 0x13)
                                 (integer! out (.numerator ^Ratio n))
                                 (integer! out (.denominator ^Ratio n)))
    :else                    (refuse! n "this kind of number has no EDN form")))

(defn- named! [out tag x]
  (u8! out tag)
  (if-let [space (namespace x)]
    (do (u8! out 2) (text! out space))
    (u8! out 1))
  (text! out (name x)))

(defn- date! [out ^Date d]
  (when-not (identical? Date (class d))
    (refuse! d "use java.util.Date or java.time.Instant"))
  (u8! out 0x25)
  (big-endian! out (flipped (.getTime d)) 8))

(defn- instant! [out ^Instant i]
  (u8! out 0x26)
  (big-endian! out (flipped (.getEpochSecond i)) 8)
  (big-endian! out (.getNano i) 4))

(declare element!)

(defn- elements! [^ByteArrayOutputStream out xs ^long depth]
  (when (>= depth depth-max)
    (refuse! xs (str "vectors in keys may be nested " depth-max " deep")))
  (doseq [x xs]
    (when (> (.size out) bytes-max)
      (refuse! xs (str "a key has at most " bytes-max " bytes")))
    (element! out x (inc depth))))

(defn- element! [out x ^long depth]
  (cond
    (string? x)              (do (u8! out 0x20) (text! out x))
    (instance? Keyword x)    (named! out 0x21 x)
    (number? x)              (number! out x)
    (instance? Symbol x)     (named! out 0x22 x)
    (nil? x)                 (u8! out 0x02)
    (instance? Boolean x)    (u8! out (if (.booleanValue ^Boolean x) 0x04 0x03))
    (instance? UUID x)       (do (u8! out 0x24)
                                 (big-endian! out (.getMostSignificantBits ^UUID x) 8)
                                 (big-endian! out (.getLeastSignificantBits ^UUID x) 8))
    (instance? Date x)       (date! out x)
    (instance? Instant x)    (instant! out x)
    (char? x)                (do (u8! out 0x23) (big-endian! out (int x) 2))
    (bytes? x)               (do (u8! out 0x27) (escaped! out x) (u8! out 0))
    (and (instance? Sequential x) (not (record? x))
         (not (instance? clojure.core.Eduction x)))
    (do (u8! out 0x30) (elements! out x depth) (u8! out 0))

    :else (refuse! x "keys are strings, keywords and other EDN scalars, and vectors of them"))
  nil)

(defn- finished ^bytes [^ByteArrayOutputStream out x]
  (when (> (.size out) bytes-max)
    (refuse! x (str "a key has at most " bytes-max " bytes")))
  (.toByteArray out))

(defn encode
  "The bytes of the key `x`, after the bytes of `space`. Throws ex-info `:raft/unreadable` when `x` cannot be a key."
  ^bytes [^long space x]
  (let [out (ByteArrayOutputStream. 32)]
    (u8! out space)
    (element! out x 0)
    (finished out x)))

(defn encode-prefix
  "The bytes with which all keys begin that begin with `x`: strings that begin with the string, vectors that begin with the
  elements of the vector, all keys for nil. Throws ex-info `:raft/unreadable` for anything else."
  ^bytes [^long space x]
  (let [out (ByteArrayOutputStream. 32)]
    (u8! out space)
    (cond
      (nil? x)        nil
      (string? x)     (do (u8! out 0x20) (escaped! out (utf-8 x)))
      (sequential? x) (do (u8! out 0x30) (elements! out x 0))
      :else           (refuse! x "a prefix is a string, a vector, or nil for all keys"))
    (finished out x)))

;; ---------------------------------------------------------------------------------------------------- decoding

(defn- next-u8 ^long [^ByteBuffer in]
  (bit-and (long (.get in)) 0xff))

(defn- ends-here?
  "True at a zero byte that is an end and not an escaped zero."
  [^ByteBuffer in]
  (let [at (.position in)]
    (and (zero? (.get in at))
         (not (and (< (inc at) (.limit in))
                   (= -1 (.get in (inc at))))))))

(defn- next-escaped ^bytes [^ByteBuffer in]
  (let [out (ByteArrayOutputStream.)]
    (loop []
      (if (ends-here? in)
        (.get in)
        (let [b (next-u8 in)]
          (u8! out b)
          (when (zero? b) (.get in))
          (recur))))
    (.toByteArray out)))

(defn- next-text ^String [in]
  (String. ^bytes (next-escaped in) StandardCharsets/UTF_8))

(defn- next-bytes ^bytes [^ByteBuffer in ^long n]
  (let [out (byte-array n)]
    (.get in out)
    out))

(defn- next-integer ^BigInteger [^ByteBuffer in]
  (let [marker    (- (next-u8 in) 0x80)
        negative? (neg? marker)
        short     (abs marker)
        size      (if (= short 100)
                    (let [n (.getInt in)] (long (if negative? (bit-not n) n)))
                    short)
        ^bytes bytes (next-bytes in size)]
    (when negative? (complement! bytes))
    (BigInteger. (int (Long/signum marker)) bytes)))

(defn- next-double ^double [^ByteBuffer in]
  (let [bits (.getLong in)]
    (Double/longBitsToDouble (if (neg? bits) (flipped bits) (bit-not bits)))))

(defn- digits-until
  "The text up to the byte `end`, each byte complemented when `negative?`."
  [^ByteBuffer in negative?]
  (let [sb (StringBuilder.)]
    (loop []
      (let [b (next-u8 in)
            b (if negative? (bit-xor b 0xff) b)]
        (when-not (zero? b)
          (.append sb (char b))
          (recur))))
    (str sb)))

(defn- next-decimal ^BigDecimal [^ByteBuffer in]
  (let [sign (dec (next-u8 in))]
    (if (zero? sign)
      BigDecimal/ZERO
      (let [bits     (.getLong in)
            exponent (flipped (if (neg? sign) (bit-not bits) bits))
            ^String digits (digits-until in (neg? sign))
            d        (BigDecimal. (BigInteger. digits) (int (- (.length digits) exponent)))]
        (if (neg? sign) (.negate d) d)))))

(defn- next-named [make ^ByteBuffer in]
  (if (= 2 (next-u8 in))
    (let [space (next-text in)] (make space (next-text in)))
    (make (next-text in))))

(declare next-element)

(defn- next-elements [^ByteBuffer in]
  (loop [xs (transient [])]
    (if (ends-here? in)
      (do (.get in) (persistent! xs))
      (recur (conj! xs (next-element in))))))

(defn- plain-integer
  "A long when it fits, otherwise a BigInt."
  [^BigInteger n]
  (if (< (.bitLength n) 64)
    (.longValue n)
    (BigInt/fromBigInteger n)))

(defn- next-element [^ByteBuffer in]
  (case (next-u8 in)
    0x02 nil
    0x03 false
    0x04 true
    0x10 (plain-integer (next-integer in))
    0x11 (next-double in)
    0x12 (next-decimal in)
    0x13 (let [numerator (next-integer in)] (Ratio. numerator (next-integer in)))
    0x20 (next-text in)
    0x21 (next-named keyword in)
    0x22 (next-named symbol in)
    0x23 (.getChar in)
    0x24 (let [high (.getLong in)] (UUID. high (.getLong in)))
    0x25 (Date. (flipped (.getLong in)))
    0x26 (let [seconds (flipped (.getLong in))] (Instant/ofEpochSecond seconds (.getInt in)))
    0x27 (next-escaped in)
    0x30 (next-elements in)
    (throw (errors/error :raft/corrupt "These bytes are no key of quorate.kv."))))

(defn decode
  "The key in `bytes`, without its space: equal to what was encoded, integers as longs where they fit, sequences as vectors.
  Throws ex-info `:raft/corrupt` when they are none."
  [^bytes bytes]
  (let [in (ByteBuffer/wrap bytes 1 (dec (alength bytes)))]
    (try
      (next-element in)
      (catch java.nio.BufferUnderflowException e
        (throw (errors/error :raft/corrupt "These bytes are no key of quorate.kv." nil e)))
      (catch IndexOutOfBoundsException e
        (throw (errors/error :raft/corrupt "These bytes are no key of quorate.kv." nil e))))))
