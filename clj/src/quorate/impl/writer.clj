(ns quorate.impl.writer
  "Values as EDN text that is sure to be read back.

  Not `pr`: what that prints depends on a dozen dynamic variables (`*print-length*` would cut an entry), on methods that
  anybody may install, and is for half of all objects not readable. This writer knows the types that EDN can carry, says
  no to every other by name and place, and stops at a limit, so that an infinite sequence is an error and not a hang.

  Beside plain EDN it uses these tags (see `quorate.impl.reader`):

      #quorate/bytes \"base64\"      a byte array inside a value
      #quorate/char 55357           a char that has no EDN form: half of a surrogate pair
      #quorate/date ms              a java.util.Date outside the years that #inst can write
      #quorate/instant \"…Z\"         a java.time.Instant
      #quorate/sorted-map {…}  #quorate/sorted-set #{…}    with the default comparator
      #quorate/queue […]            a clojure.lang.PersistentQueue
      #my.ns.Rec {…}                a record

  Metadata is not part of a value and is not written."
  (:require [quorate.impl.errors :as errors]
            [quorate.impl.reader :as reader]
            [quorate.impl.tokens :as tokens])
  (:import (clojure.lang BigInt IPersistentCollection IPersistentMap IPersistentSet IPersistentVector IRecord Keyword
                         Numbers PersistentQueue PersistentTreeMap PersistentTreeSet Ratio RT Sequential Symbol TaggedLiteral)
           (java.io OutputStream)
           (java.math BigDecimal BigInteger)
           (java.time Instant)
           (java.util Arrays Base64 Date Iterator List Map Map$Entry Set UUID)
           (quorate.impl TextSink)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:const depth-max
  "Collections nested deeper than this are refused: readers recur, and a stack is finite."
  512)

(def ^:private ^:const spill-bytes
  "Bytes held before they go to the stream, when there is one."
  65536)

(defprotocol ^:private Progress
  (room! [out] "Checks the limit, or empties the buffer into the stream. Called between elements.")
  (suspect! [out] "Notes that only reading back can tell whether what was written is readable.")
  (suspect? [out]))

(defn- too-large [limit]
  (errors/error :raft/too-large (str "The value takes more than " limit " bytes as EDN.") {:limit limit}))

;; What is written now is found at `x` of the collection at `depth`, for the sentence of a refusal.
(definterface Path
  (^void step [^long depth x])
  (^Object stepAt [^long depth]))

(deftype ^:private Out [^TextSink sb ^long limit ^OutputStream stream strict
                        ^:unsynchronized-mutable ^objects path ^:unsynchronized-mutable doubtful]
  Path
  (step [_ depth x]
    (let [i (int depth)]
      (when (>= i (alength path))
        (set! path (Arrays/copyOf path (int (* 2 i)))))
      (aset path i x)))
  (stepAt [_ depth] (aget path (int depth)))
  Progress
  (room! [_]
    (if (nil? stream)
      (when (> (.length sb) limit)
        (throw (too-large limit)))
      (when (> (.length sb) spill-bytes)
        (.spill sb stream))))
  (suspect! [_] (set! doubtful true))
  (suspect? [_] doubtful))

(defn- path-to [^Out out ^long depth]
  (mapv (fn [^long i] (.stepAt out i)) (range depth)))

(defn- described [x]
  (cond
    (fn? x)                                 (str "a function (" (.getName (class x)) ")")
    (instance? java.util.regex.Pattern x)   (str "a regular expression (" x ")")
    (instance? clojure.lang.IAtom x)        "an atom"
    (instance? Class x)                     (str "a class (" (.getName ^Class x) ")")
    (keyword? x)                            (str "the keyword with namespace " (pr-str (namespace x)) " and name " (pr-str (name x)))
    (symbol? x)                             (str "the symbol with namespace " (pr-str (namespace x)) " and name " (pr-str (name x)))
    :else                                   (str "an object of " (.getName (class x)))))

(defn- refuse!
  "Throws: `x`, which is at `depth` collections deep, cannot be read back, `because`."
  [^Out out x ^long depth because]
  (let [path (path-to out depth)]
    (throw (errors/error :raft/unreadable
                         (str "The value cannot be read back: it has " (described x)
                              (when (seq path) (str " at " (binding [*print-length* 16 *print-level* 3] (pr-str path))))
                              (when because (str "; " because))
                              ".")
                         {:path path, :class (class x)}))))

(defn- write-string [^Out out ^String s]
  ;; Before it takes the room: one that is too long by far.
  (when (and (nil? (.-stream out)) (> (.length s) (.-limit out)))
    (throw (too-large (.-limit out))))
  (.quoted ^TextSink (.-sb out) s))

(def ^:private char-names
  {\newline "newline", \space "space", \tab "tab", \return "return", \backspace "backspace", \formfeed "formfeed"})

(defn- write-char [^Out out ^Character c]
  (let [^TextSink sb (.-sb out)]
    (if (Character/isSurrogate c)
      (.. sb (append "#quorate/char ") (append (str (int (.charValue c)))))
      (.. sb (append \\) (append (str (get char-names c c)))))))

(defn- write-double [^Out out ^double d]
  (let [^TextSink sb (.-sb out)]
    (cond
      (Double/isNaN d)                  (do (suspect! out) (.append sb "##NaN"))
      (= d Double/POSITIVE_INFINITY)    (.append sb "##Inf")
      (= d Double/NEGATIVE_INFINITY)    (.append sb "##-Inf")
      :else                             (.append sb d))))

(defn- write-ratio [^Out out ^Ratio r depth]
  (when-not (= r (Numbers/divide (.numerator r) (.denominator r)))
    (refuse! out r depth "it is not in lowest terms"))
  (.. ^TextSink (.-sb out) (append (str (.numerator r))) (append \/) (append (str (.denominator r)))))

(defn- write-number [^Out out ^Number x ^long depth]
  (let [^TextSink sb (.-sb out)]
    (cond
      (or (instance? Integer x)
          (instance? Short x)
          (instance? Byte x))      (.append sb (.longValue x))
      (instance? Double x)         (write-double out (.doubleValue x))
      (instance? Float x)          (write-double out (.doubleValue x))
      (or (instance? BigInt x)
          (instance? BigInteger x)) (.. sb (append (str x)) (append \N))
      (instance? BigDecimal x)     (.. sb (append (str x)) (append \M))
      (instance? Ratio x)          (write-ratio out x depth)
      :else                        (refuse! out x depth nil))))

(def ^:private ^:const inst-first-ms "1583-01-01: before, Java's two calendars disagree." -12212553600000)
(def ^:private ^:const inst-last-ms "The end of the year 9999, the last one of four digits." 253402300799999)

(defn- write-date [^Out out ^Date date depth]
  (when-not (identical? Date (class date))
    (refuse! out date depth "use java.util.Date or java.time.Instant"))
  (let [^TextSink sb (.-sb out)
        ms (.getTime date)]
    (if (and (>= ms inst-first-ms) (<= ms inst-last-ms))
      (.. sb (append "#inst \"") (append (str (Instant/ofEpochMilli ms))) (append \"))
      (.. sb (append "#quorate/date ") (append ms)))))

(declare write)

(defn- write-elements
  "The elements of `xs`, one space between them. The path names them by position, except in sets (`named?` false)."
  [^Out out ^Iterator it ^long depth named?]
  (let [^TextSink sb (.-sb out)]
    (loop [i 0]
      (when (.hasNext it)
        (when (pos? i) (.append sb \space))
        (room! out)
        (.step out depth (if named? i :quorate/element))
        (write out (.next it) (inc depth))
        (recur (inc i))))))

(defn- write-entries [^Out out ^Iterator it ^long depth]
  (let [^TextSink sb (.-sb out)]
    (.append sb \{)
    (loop [first? true]
      (when (.hasNext it)
        (let [^Map$Entry entry (.next it)
              k (.getKey entry)]
          (when-not first? (.append sb ", "))
          (room! out)
          (.step out depth :quorate/key)
          (write out k (inc depth))
          (.append sb \space)
          (.step out depth k)
          (write out (.getValue entry) (inc depth))
          (recur false))))
    (.append sb \})))

(defn- write-between [^Out out ^String open ^Iterator it ^String close depth named?]
  (.append ^TextSink (.-sb out) open)
  (write-elements out it depth named?)
  (.append ^TextSink (.-sb out) close))

(defn- default-comparator? [^clojure.lang.Sorted coll]
  (identical? RT/DEFAULT_COMPARATOR (.comparator coll)))

(defn- in-key?
  "True when what is at `depth` is part of a key of a map or an element of a set."
  [^Out out ^long depth]
  (loop [i 0]
    (and (< i depth)
         (or (identical? :quorate/key (.stepAt out i))
             (identical? :quorate/element (.stepAt out i))
             (recur (inc i))))))

(defn- sorted-tag
  "The tag before a sorted collection, nil for a collection of another kind. One with a comparator of its own becomes
  an ordinary one, equal to it; in a snapshot, where the order is part of what the state machine may depend on, it
  is refused. One that is a key is suspect: a reader compares keys, and what it sorts may not compare."
  [^Out out coll ^Class sorted-class tag depth]
  (when (sorted? coll)
    (when (in-key? out depth) (suspect! out))
    (cond
      (and (instance? sorted-class coll) (default-comparator? coll)) tag
      (.-strict out) (refuse! out coll depth "its comparator cannot be written")
      :else          (do (suspect! out) nil))))

(defn- write-map [^Out out ^Iterable m depth]
  (when-let [tag (sorted-tag out m PersistentTreeMap "#quorate/sorted-map " depth)]
    (.append ^TextSink (.-sb out) ^String tag))
  (write-entries out (.iterator m) depth))

(defn- write-set [^Out out ^Iterable s depth]
  (when-let [tag (sorted-tag out s PersistentTreeSet "#quorate/sorted-set " depth)]
    (.append ^TextSink (.-sb out) ^String tag))
  (write-between out "#{" (.iterator s) "}" depth false))

(defn- write-symbol [^Out out s depth]
  (when-not (tokens/readable-symbol? s)
    (refuse! out s depth "as text it would be something else"))
  (.append ^TextSink (.-sb out) (str s)))

(defn- write-record [^Out out ^Iterable r depth]
  (let [tag (symbol (.getName (class r)))]
    (when-not (and (tokens/readable-tag? tag) (reader/record-tag? tag))
      (refuse! out r depth "the name of its class cannot be a tag"))
    (.. ^TextSink (.-sb out) (append (str tag)))
    (write-entries out (.iterator r) depth)))

(defn- write-tagged [^Out out ^TaggedLiteral literal ^long depth]
  (let [^TextSink sb (.-sb out)
        tag (.-tag literal)]
    (when-not (and (symbol? tag) (tokens/readable-tag? tag))
      (refuse! out literal depth (str "its tag " (pr-str tag) " is not readable")))
    (when (reader/reserved-tag? tag)
      (refuse! out literal depth (str "its tag " tag " has a meaning of its own: use the value that it stands for")))
    (suspect! out)
    (.. sb (append \#) (append (str tag)) (append \space))
    (.step out depth :form)
    (write out (.-form literal) (inc depth))))

(defn- write-collection
  "Whatever has elements, or is no value at all."
  [^Out out x ^long depth]
  (when (>= depth depth-max)
    (refuse! out x depth (str "collections may be nested " depth-max " deep")))
  (cond
    (instance? IRecord x)            (do (.append ^TextSink (.-sb out) \#) (write-record out x depth))
    (instance? IPersistentMap x)     (write-map out x depth)
    (instance? IPersistentVector x)  (write-between out "[" (.iterator ^Iterable x) "]" depth true)
    (instance? IPersistentSet x)     (write-set out x depth)
    (instance? PersistentQueue x)    (write-between out "#quorate/queue [" (.iterator ^Iterable x) "]" depth true)
    (and (instance? Sequential x)
         (instance? IPersistentCollection x)) (write-between out "(" (clojure.lang.SeqIterator. x) ")" depth true)
    (instance? TaggedLiteral x)      (write-tagged out x depth)
    (instance? Map x)                (do (suspect! out) (write-entries out (.iterator (.entrySet ^Map x)) depth))
    (instance? Set x)                (do (suspect! out) (write-set out x depth))
    (and (instance? List x)
         (not (instance? clojure.core.Eduction x))) (write-between out "[" (.iterator ^List x) "]" depth true)
    :else                            (refuse! out x depth nil)))

(defn- write-scalar [^Out out x ^long depth]
  (let [^TextSink sb (.-sb out)]
    (cond
      (instance? Number x)    (write-number out x depth)
      (instance? Symbol x)    (write-symbol out x depth)
      (instance? Character x) (write-char out x)
      (instance? UUID x)      (.. sb (append "#uuid \"") (append (str x)) (append \"))
      (instance? Date x)      (write-date out x depth)
      (instance? Instant x)   (.. sb (append "#quorate/instant \"") (append (str x)) (append \"))
      (bytes? x)              (.. sb (append "#quorate/bytes \"")
                                  (append (.encodeToString (Base64/getEncoder) ^bytes x))
                                  (append \"))
      :else                   (write-collection out x depth))))

(defn- write
  "Appends `x`, found `depth` collections deep, to `out`."
  [^Out out x ^long depth]
  (let [^TextSink sb (.-sb out)]
    (cond
      (nil? x)               (.append sb "nil")
      (instance? Keyword x)  (or (.appendKnown sb ^Keyword x)
                                 (if (tokens/readable-keyword? x)
                                   (.remember sb ^Keyword x)
                                   (refuse! out x depth "as text it would be something else")))
      (instance? String x)   (write-string out x)
      (instance? Long x)     (.append sb (.longValue ^Long x))
      (instance? Boolean x)  (.append sb (if (.booleanValue ^Boolean x) "true" "false"))
      :else                  (write-scalar out x depth))
    nil))

(defn text
  "`x` as EDN text in UTF-8, at most `limit` bytes, behind the byte `format`; without that when it is nil. Throws ex-info
  `:raft/unreadable` with the `:path` and `:class` of the part that cannot be read back, or `:raft/too-large` with the
  `:limit`."
  ^bytes [x ^long limit format]
  (let [sb  (TextSink. 192)
        out (Out. sb limit nil false (object-array 8) false)]
    (when format
      (.raw sb (int format)))
    (write out x 0)
    (room! out)
    (let [bytes (.toBytes sb)]
      (when (suspect? out)
        (reader/check-readable #(reader/from-bytes bytes (if format 1 0) (alength bytes))))
      bytes)))

(defn stream!
  "Writes `x` as EDN text in UTF-8 to `stream`, a java.io.OutputStream, however long. Stricter than [[text]]: a sorted
  collection with a comparator of its own is refused. Returns true when what was written still has to be read once, because
  only that can tell whether it is readable. Throws ex-info `:raft/unreadable`; what the stream throws."
  [x ^OutputStream stream]
  (let [sb  (TextSink. 192)
        out (Out. sb Long/MAX_VALUE stream true (object-array 8) false)]
    (write out x 0)
    (.spill sb stream)
    (boolean (suspect? out))))
