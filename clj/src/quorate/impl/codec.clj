(ns quorate.impl.codec
  "Entries and values as bytes, and back.

  The first byte says what follows, so that a byte array travels as it is and formats can be added:

      1  EDN text in UTF-8
      2  a byte array, as it is
      3  an id that the user gave, then the entry: `u32` length (little-endian) · the id as EDN text · a value of format 1 or 2

  Numbers 4 and up are for later versions; reading one is an error that says so."
  (:require [clojure.java.io :as io]
            [quorate.impl.errors :as errors]
            [quorate.impl.reader :as reader]
            [quorate.impl.writer :as writer])
  (:import (java.io BufferedInputStream BufferedOutputStream File FileInputStream FileOutputStream InputStream
                    InputStreamReader)
           (java.nio ByteBuffer ByteOrder)
           (java.nio.charset StandardCharsets)
           (quorate.impl Span)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:const entry-bytes-max
  "The engine's limit for one entry, in bytes, the format byte included (ENTRY_BYTES_MAX in limits.rs)."
  (* 8 1024 1024))

(def ^:const format-edn "EDN text in UTF-8." 1)
(def ^:const format-bytes "A byte array as it is." 2)
(def ^:const format-command "An id that the user gave, and the entry." 3)

(def ^:private ^:const command-header "Bytes before the id: the format and the id's length." 5)

(defn- too-large [^long bytes]
  (errors/error :raft/too-large
                (str "The entry has " bytes " bytes; at most " entry-bytes-max " are possible.")
                {:bytes bytes, :limit entry-bytes-max}))

(defn- prefixed
  "A new array: `format`, then `payload`."
  ^bytes [^long format ^bytes payload]
  (let [n   (alength payload)
        out (byte-array (inc n))]
    (when (> (inc n) (long entry-bytes-max))
      (throw (too-large (inc n))))
    (aset out 0 (unchecked-byte format))
    (System/arraycopy payload 0 out 1 n)
    out))

(defn text-bytes
  "`value` as EDN text in UTF-8 without a format byte, for the engine's own configuration."
  ^bytes [value]
  (writer/text value entry-bytes-max nil))

(defn check-bytes
  "The byte array `value`, which as an entry is [[format-bytes]] and then itself. Throws ex-info `:raft/too-large`."
  ^bytes [^bytes value]
  (when (>= (alength value) (long entry-bytes-max))
    (throw (too-large (inc (alength value)))))
  value)

(defn encode
  "`value` as bytes: a byte array as it is, anything else as EDN. Throws ex-info `:raft/unreadable` with the `:path` and
  `:class` of the part that could not be read back (a function, an object, a regular expression), or `:raft/too-large`."
  ^bytes [value]
  (if (bytes? value)
    (prefixed format-bytes value)
    (writer/text value entry-bytes-max format-edn)))

(defn encode-command
  "`value` with the `id` that the user gave it, any EDN value but nil. Throws what [[encode]] throws."
  ^bytes [id value]
  (let [^bytes id-text (text-bytes id)
        ^bytes payload (encode value)
        n   (+ (long command-header) (alength id-text) (alength payload))]
    (when (> n (long entry-bytes-max))
      (throw (too-large n)))
    (-> (ByteBuffer/allocate (int n))
        (.order ByteOrder/LITTLE_ENDIAN)
        (.put (unchecked-byte format-command))
        (.putInt (alength id-text))
        (.put id-text)
        (.put payload)
        .array)))

(defn command?
  "True when `body`, an entry, has an id that the user gave."
  [^Span body]
  (and (< (.from body) (.to body))
       (= (long (aget ^bytes (.bytes body) (.from body))) (long format-command))))

(defn- id-end
  "Where the id of the command between `from` and `to` ends. Throws ex-info `:raft/corrupt` when it does not."
  ^long [^bytes bytes ^long from ^long to]
  (let [start (+ from (long command-header))
        size  (if (<= start to)
                (long (.getInt (.order (ByteBuffer/wrap bytes) ByteOrder/LITTLE_ENDIAN) (int (inc from))))
                -1)
        end   (+ start size)]
    (when (or (neg? size) (> end to))
      (throw (errors/error :raft/corrupt "An entry whose id is cut off.")))
    end))

(defn command-id
  "The id that the user gave the entry `body`, [[command?]]. Throws ex-info `:raft/corrupt`."
  [^Span body]
  (reader/from-bytes (.bytes body) (+ (.from body) (long command-header)) (id-end (.bytes body) (.from body) (.to body))))

(defn decode
  "The value in `bytes` between `from` and `to`, without its id when it has one. Throws ex-info `:raft/corrupt` when they are not what [[encode]] makes."
  ([^bytes bytes] (decode bytes 0 (alength bytes)))
  ([^bytes bytes ^long from ^long to]
   (when (>= from to)
     (throw (errors/error :raft/corrupt "An entry of no bytes.")))
   (let [format (long (aget bytes from))
         start  (inc from)]
     (cond
       (= format (long format-edn))   (reader/from-bytes bytes start to)
       (= format (long format-bytes)) (java.util.Arrays/copyOfRange bytes (int start) (int to))
       (= format (long format-command)) (decode bytes (id-end bytes from to) to)
       :else (throw (errors/error :raft/corrupt (str "An entry of format " format ", which this version of Quorate does not know.")))))))

(defn decode-span
  "The value in `body`, as [[decode]]."
  [^Span body]
  (decode (.bytes body) (.from body) (.to body)))

(defn read-text
  "The value in `bytes`, EDN text in UTF-8 without a format byte, as the engine writes it."
  [^bytes bytes]
  (reader/from-bytes bytes 0 (alength bytes)))

(defn- read-value [^InputStream in]
  (let [format (.read in)]
    (if (= format (int format-edn))
      (reader/from-reader (InputStreamReader. in StandardCharsets/UTF_8))
      (throw (errors/error :raft/corrupt (str "A snapshot of format " format ", which this version of Quorate does not know."))))))

(defn read-file
  "The value that [[write-file!]] wrote to `file`. Throws ex-info `:raft/corrupt`, or IOException."
  [file]
  (with-open [in (BufferedInputStream. (FileInputStream. (io/file file)) 65536)]
    (read-value in)))

(defn write-file!
  "Writes `value` to `file`, streaming, whatever its size, and forces it to the disk. Throws ex-info `:raft/unreadable`, or
  IOException."
  [value file]
  (let [^File file (io/file file)
        doubtful?
        (with-open [out (FileOutputStream. file)]
          (let [buffered (BufferedOutputStream. out 65536)
                _        (.write buffered (int format-edn))
                doubtful (writer/stream! value buffered)]
            (.flush buffered)
            (.sync (.getFD out))
            doubtful))]
    (when doubtful?
      (reader/check-readable #(read-file file)))
    nil))
