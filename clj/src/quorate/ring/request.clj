(ns quorate.ring.request
  "What a request asks for: its key, its query, its precondition, its body. Pure, but for reading the body.

  A bad request is an ex-info with `:error :ring/request`, `:status`, and a sentence."
  (:require [clojure.string :as str])
  (:import (java.io ByteArrayOutputStream InputStream IOException)
           (java.nio ByteBuffer)
           (java.nio.charset CharacterCodingException CodingErrorAction StandardCharsets)
           (java.util.concurrent CompletableFuture CompletionException TimeUnit TimeoutException)
           (java.util.concurrent.atomic AtomicLong)
           (java.util.function BiFunction)))

(set! *warn-on-reflection* true)

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

(defn check-length
  "Refuses with 413 when the headers tell that the body has more than `most` bytes."
  [headers most]
  (let [length (declared-length headers)]
    (when (and length (< (long most) (long length)))
      (refuse 413 "The value has " length " bytes; at most " most " are possible."))))

(defn- broken-off
  "A client that breaks off is no failure of the server."
  []
  (refuse 400 "The body ended before its time."))

(defn- copy
  "What `from` holds, as long as `taken?` agrees to so many bytes more."
  ^bytes [^InputStream from taken?]
  (let [buffer (byte-array 16384)
        octets (ByteArrayOutputStream.)]
    (loop []
      (let [got (.read from buffer)]
        (when (and (not (neg? got)) (taken? got))
          (.write octets buffer 0 got)
          (recur))))
    (.toByteArray octets)))

(defn- stream-body
  "The body from a stream, as other ring adapters have it."
  [^InputStream body taken?]
  (CompletableFuture/completedFuture
   (if (nil? body)
     (byte-array 0)
     (try (copy body taken?)
          (catch IOException _ (broken-off))))))

(defn- late
  "What is wrong when a body does not come, as the exception to throw."
  [thrown body-ms]
  (let [cause (if (instance? CompletionException thrown) (ex-cause thrown) thrown)]
    (if (instance? TimeoutException cause)
      (refuse 408 "The body took longer than " (/ (long body-ms) 1000.0) " seconds.")
      (broken-off))))

(defn body
  "A future of the whole body, a byte array; never holds more than `most` bytes of it. `taken?` is asked, by number of bytes, whether
  there is room for each further piece; where there is none it throws. After `body-ms` without an end it fails."
  ^CompletableFuture [{:keys [read-body body]} most body-ms taken?]
  (let [room    (AtomicLong. (long most))
        within? (fn [n] (and (not (neg? (.addAndGet room (- (long n)))))
                             (taken? n)))
        read    (if read-body (read-body within?) (stream-body body within?))]
    (-> (.orTimeout ^CompletableFuture read (long body-ms) TimeUnit/MILLISECONDS)
        (.handle (reify BiFunction
                   (apply [_ octets thrown]
                     (cond thrown              (late thrown body-ms)
                           (neg? (.get room)) (refuse 413 "The value is larger than " most " bytes.")
                           :else               octets)))))))
