(ns quorate.edn-bytes-test
  "The reader of bytes reads what clojure.edn reads, or leaves it to that."
  (:require [clojure.edn :as edn]
            [clojure.test :refer [deftest is]]
            [clojure.test.check :as tc]
            [clojure.test.check.generators :as gen]
            [clojure.test.check.properties :as prop]
            [quorate.impl.codec :as codec]
            [quorate.impl.reader :as reader])
  (:import (java.nio.charset StandardCharsets)
           (quorate.impl EdnBytes)))

(set! *warn-on-reflection* true)

(defrecord Point [x y])

(defn- direct
  "What the reader of bytes makes of `text`; ::left when it leaves it to clojure.edn."
  [^String text]
  (let [bytes (.getBytes text StandardCharsets/UTF_8)
        found (EdnBytes/read bytes 0 (alength bytes) @#'reader/tagged)]
    (if (identical? EdnBytes/NOT_HERE found) ::left found)))

(defn- by-edn
  "What clojure.edn makes of `text`; ::refused when it throws."
  [^String text]
  (try
    (let [in    (java.io.PushbackReader. (java.io.StringReader. text))
          opts  {:readers @#'reader/readers, :default @#'reader/unknown-tag, :eof ::end}
          value (edn/read opts in)]
      (if (and (not= ::end value) (= ::end (edn/read opts in)))
        value
        ::refused))
    (catch Exception _ ::refused)
    ;; clojure.core's own reader of #uuid asserts that it gets a string.
    (catch AssertionError _ ::refused)))

(defn- whole
  "`x` with classes and metadata, so that `=` sees all."
  [x]
  [(class x) (meta x)
   (cond
     (record? x)     (whole (into {} x))
     (map? x)        (into {} (map (fn [[k v]] [(whole k) (whole v)])) x)
     (set? x)        (into #{} (map whole) x)
     (sequential? x) (mapv whole x)
     (bytes? x)      (vec x)
     (tagged-literal? x) [(:tag x) (whole (:form x))]
     (and (double? x) (Double/isNaN x)) ::nan
     (double? x)     (Double/doubleToRawLongBits x)
     :else           x)])

(defn- agree? [text]
  (let [found (direct text)]
    (or (= ::left found)
        (= (whole found) (whole (by-edn text))))))

(def ^:private pieces
  ["1" "-1" "+1" "0" "-0" "007" "010" "08" "0x1F" "2r101" "1N" "1M" "1/2" "1.5" "-0.0" "1." ".5" "1e10" "1.5E-7" "1e" "123456789012345678"
   "1234567890123456789" "9223372036854775807" "9223372036854775808" "0.1" "123456789.123456789" "1e400" "3.0000000000000004"
   ":a" ":a/b" ":a.b/c-d" ":1" "::a" ":a/" ":/a" ":" ":a:b" ":a#b" ":a/b/c" "a" "a/b" "/" "a'" "-" "." "+a" "-a" "nil" "true" "false"
   "nil?" "\\a" "\\1" "\\newline" "\\space" "\\u0041" "\\λ" "\\(" "\\" "\"x\"" "\"\"" "\"a\\n\\t\\\"\\\\b\"" "\"\\u0041\"" "\"\\101\""
   "\"\\q\"" "\"λ\"" "\"\ud83d\ude00\"" "\"\ufffd\"" "\"" "[" "]" "{" "}" "(" ")" "#{" "#inst \"2020-01-02\"" "#inst \"x\""
   "#uuid \"00000000-0000-0000-0000-000000000001\"" "#my/tag" "#quorate.edn_bytes_test.Point" "#quorate/bytes \"AAE=\"" "#quorate/date 5"
   "#quorate/queue [1]" "#:a{:b 1}" "#" "#_" "#_ 1" "^" "^:m" "^{:a 1}" ";c\n" ";" "," " " "\n" "\u00a0" "\u2028" "##NaN" "##Inf" "##-Inf"
   "'" "@" "`" "~" "%" "&" "λ" "{:a 1}" "{:a 1 :a 2}" "#{1 1}" "{1}" "[1 [2]]" "(1)" "()" "[]" "{}" "#{}"])

(def ^:private any-text
  "Pieces of EDN, with and without room between them, in brackets or not."
  (gen/let [parts   (gen/vector (gen/elements pieces) 0 7)
            between (gen/elements ["" " " ","])
            [open close] (gen/elements [["" ""] ["[" "]"] ["{" "}"] ["(" ")"] ["#{" "}"] ["#my/tag [" "]"]])]
    (str open (apply str (interpose between parts)) close)))

(defn- check! [n property]
  (let [result (tc/quick-check n property)]
    (is (true? (:pass? result)) (pr-str (:seed result) (get-in result [:shrunk :smallest])))))

(deftest any-text-is-read-as-clojure-edn-reads-it-or-left-to-it
  (run! #(is (agree? %) (pr-str %)) pieces)
  (check! 20000 (prop/for-all [text any-text] (agree? text))))

(def ^:private plain-value
  (gen/recursive-gen
   (fn [inner]
     (gen/one-of [(gen/vector inner) (gen/list inner) (gen/set inner) (gen/map inner inner)]))
   (gen/one-of [gen/large-integer gen/boolean gen/string gen/keyword gen/keyword-ns gen/symbol gen/symbol-ns gen/uuid (gen/return nil)
                (gen/double* {:NaN? false, :infinite? false}) gen/string-alphanumeric])))

(deftest what-the-writer-writes-is-read-as-clojure-edn-reads-it
  (check! 2000 (prop/for-all [value plain-value]
                 (let [text (String. ^bytes (codec/text-bytes value) StandardCharsets/UTF_8)]
                   (and (= (whole value) (whole (by-edn text)))
                        (agree? text))))))

(deftest damaged-text-is-read-as-clojure-edn-reads-it-or-left-to-it
  (check! 5000 (prop/for-all [value plain-value
                              at    gen/nat
                              piece (gen/elements pieces)]
                 (let [text (pr-str value)
                       at   (min at (count text))]
                   (and (agree? (str (subs text 0 at) piece (subs text at)))
                        (agree? (subs text 0 at)))))))

(deftest bytes-that-are-no-utf-8-are-left-to-clojure-edn
  (doseq [broken [[0xe2 0x82] [0xff] [0xc0 0x80] [0xed 0xa0 0x80] [0xf0 0x9f 0x98]]
          :let [bytes (byte-array (concat [34 97] (map unchecked-byte broken) [34]))]]
    (is (= (edn/read-string (String. bytes StandardCharsets/UTF_8)) (reader/from-bytes bytes 0 (alength bytes))))))

(deftest ordinary-values-are-not-left-to-clojure-edn
  (doseq [value [nil true 1 -5 1.5 "text" "λ\n\"" :a :a/b 'sym {} [] () #{} {:op :set, :key "k", :value {:n [1 2.5 -3e-7 #{:x}], :at #inst "2024-01-01"}}
                 (->Point 1 [2]) #uuid "00000000-0000-0000-0000-000000000001" \a (vec (range 100)) (zipmap (range 100) (range))]
          :let [found (direct (String. ^bytes (codec/text-bytes value) StandardCharsets/UTF_8))]]
    (is (= value found))))

(deftest depth-does-not-end-the-stack
  (is (= ::left (direct (apply str (repeat 100000 "[")))))
  (is (= ::left (direct (apply str (repeat 100000 "#a ")))))
  (let [deep (nth (iterate vector 1) 500)]
    (is (= deep (codec/decode (codec/encode deep))))))
