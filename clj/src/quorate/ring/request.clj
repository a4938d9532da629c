(ns quorate.ring.request
  "What a request asks for: its key, its query, its precondition, its body. Pure, but for reading the body.

  A bad request is an ex-info with `:error :ring/request`, `:status`, and a sentence."
  (:require [clojure.string :as str])
  (:import (java.io ByteArrayOutputStream InputStream IOException)
           (java.nio ByteBuffer)
           (java.nio.charset CharacterCodingException CodingErrorAction StandardCharsets)))

(set! *warn-on-reflection* true)

(def body-bytes-max
  "Largest body of a PUT, in bytes; the engine's largest command, of which key and framing are a part."
  (* 8 1024 1024))

(def body-ms-max
  "How long a client may take to send a body, in milliseconds; a slow one holds a thread."
  60000)

(defn refuse
  "Throws the refusal of a request: the HTTP `status` and a sentence."
  [status & sentence]
  (throw (ex-info (apply str sentence) {:error :ring/request :status status})))

;; --- the key

(defn- hex-digit
  "The value of the hexadecimal digit at `at`, or -1."
  ^long [^String text ^long at]
  (if (< at (.length text))
    (long (Character/digit (.charAt text at) 16))
    -1))

(defn- hex-pair
  "The octet that the escape at `at` stands for."
  ^long [^String text ^long at]
  (let [high (hex-digit text (+ at 1))
        low  (hex-digit text (+ at 2))]
    (when (or (neg? high) (neg? low))
      (refuse 400 "The path has a % that is not followed by two hexadecimal digits."))
    (+ (* 16 high) low)))

(defn- percent-decoded
  "The bytes that the text stands for: escapes decoded, everything else in UTF-8."
  ^bytes [^String text]
  (let [out (ByteArrayOutputStream.)]
    (loop [at 0]
      (when (< at (.length text))
        (let [point (.codePointAt text at)]
          (if (= point (int \%))
            (do (.write out (int (hex-pair text at)))
                (recur (+ at 3)))
            (do (.writeBytes out (.getBytes (Character/toString point) StandardCharsets/UTF_8))
                (recur (+ at (Character/charCount point))))))))
    (.toByteArray out)))

(defn- utf-8
  "The bytes as a string; refused when they are not UTF-8."
  [^bytes octets]
  (try
    (-> (.newDecoder StandardCharsets/UTF_8)
        (.onMalformedInput CodingErrorAction/REPORT)
        (.onUnmappableCharacter CodingErrorAction/REPORT)
        (.decode (ByteBuffer/wrap octets))
        str)
    (catch CharacterCodingException _
      (refuse 400 "The path is not UTF-8."))))

(defn path-key
  "The key in the undecoded path `uri`, as a string: everything after the first slash, decoded. Nothing is normalised:
  `a/../b` and `a//b` are keys."
  [^String uri]
  (when-not (str/starts-with? uri "/")
    (refuse 400 "The path must start with a slash."))
  ;; The server stands U+FFFD for raw bytes that are not UTF-8; a key is never altered without notice.
  (when (str/includes? uri "\uFFFD")
    (refuse 400 "The path is not UTF-8; escape its bytes with %."))
  (utf-8 (percent-decoded (subs uri 1))))

(defn key-bytes
  "The bytes under which the key is stored."
  ^bytes [^String k]
  (.getBytes k StandardCharsets/UTF_8))

;; --- the query

(def ^:private consistencies
  {"linearizable" :linearizable, "lease" :lease, "local" :local})

(defn consistency
  "The consistency that the query string of a read asks for: `:linearizable` unless it says otherwise. What is not
  known is refused, for it may be a part of the key that should have been escaped."
  [query]
  (reduce (fn [_ pair]
            (let [[parameter value] (str/split pair #"=" 2)]
              (when-not (= "consistency" parameter)
                (refuse 400 "There is no parameter \"" parameter "\"; a question mark in a key is written %3F."))
              (or (consistencies value)
                  (refuse 400 "consistency must be linearizable, lease or local."))))
          :linearizable
          (remove str/blank? (str/split (or query "") #"&"))))

(defn no-query
  "Refuses a query string where none has a meaning."
  [query]
  (when-not (str/blank? query)
    (refuse 400 "This request takes no parameters; a question mark in a key is written %3F.")))

;; --- preconditions (RFC 9110, section 13)

(defn etag
  "The ETag of a revision."
  [revision]
  (str \" revision \"))

(defn- revisions
  "The revisions in a list of entity tags. Tags that are weak or not ours match nothing, and are left out."
  [header text]
  (let [tags (map str/trim (str/split text #","))]
    (when-not (every? #(re-matches #"(W/)?\"[^\"]*\"" %) tags)
      (refuse 400 header " must be * or ETags in double quotes."))
    (into #{} (keep #(some-> (re-matches #"\"([0-9]{1,18})\"" %) second parse-long)) tags)))

(defn- condition [headers header]
  (when-let [text (some-> (get headers (str/lower-case header)) str/trim)]
    (if (= "*" text) :any (revisions header text))))

(defn precondition
  "What the headers demand: nil, `[:match x]` or `[:none-match x]`, where x is `:any` or a set of revisions."
  [headers]
  (let [match      (condition headers "If-Match")
        none-match (condition headers "If-None-Match")]
    (when (and match none-match)
      (refuse 400 "Send If-Match or If-None-Match, not both."))
    (cond match      [:match match]
          none-match [:none-match none-match])))

;; --- the body

(defn- declared-length
  "The Content-Length, or nil when there is none."
  [headers]
  (some-> (get headers "content-length") str/trim parse-long))

(defn body-bound
  "How many bytes the body of this request can have; refused with 413 when that is known to be too many."
  ^long [headers]
  (let [length (declared-length headers)]
    (when (and length (< (long body-bytes-max) (long length)))
      (refuse 413 "The value has " length " bytes; at most " body-bytes-max " are possible."))
    (long (or length body-bytes-max))))

(defn- copy-up-to
  "Copies at most about `n` bytes; refuses a client that takes longer than `body-ms-max`."
  [^InputStream from ^ByteArrayOutputStream to ^long n]
  (let [buffer   (byte-array 16384)
        deadline (+ (System/nanoTime) (* (long body-ms-max) 1000000))]
    (loop []
      (when (< deadline (System/nanoTime))
        (refuse 408 "The body took longer than " (quot (long body-ms-max) 1000) " seconds."))
      (let [got (.read from buffer)]
        (when (pos? got)
          (.write to buffer 0 got))
        (when (and (not (neg? got)) (< (.size to) n))
          (recur))))))

(defn- read-up-to
  "At most about `n` bytes of the body. A client that breaks off is no failure of the server."
  [^InputStream body ^long n]
  (let [octets (ByteArrayOutputStream.)]
    (try (copy-up-to body octets n)
         (catch IOException _
           (refuse 400 "The body ended before its time.")))
    (.toByteArray octets)))

(defn body-bytes
  "The whole body; never reads beyond the limit."
  ^bytes [^InputStream body]
  (if (nil? body)
    (byte-array 0)
    (let [^bytes octets (read-up-to body (inc (long body-bytes-max)))]
      (when (< (long body-bytes-max) (alength octets))
        (refuse 413 "The value is larger than " body-bytes-max " bytes."))
      octets)))
