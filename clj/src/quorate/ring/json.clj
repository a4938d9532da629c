(ns quorate.ring.json
  "Writes JSON: maps, sequences, strings, numbers, booleans, nil. Keywords lose their colon; in keys `-` becomes `_`
  and a question mark goes."
  (:require [clojure.string :as str]))

(set! *warn-on-reflection* true)

(defn- escape [^Character c]
  (case c
    \" "\\\""
    \\ "\\\\"
    \newline "\\n"
    \return "\\r"
    \tab "\\t"
    (when (or (Character/isISOControl (char c)) (Character/isSurrogate (char c)) (contains? #{\u2028 \u2029} c))
      (format "\\u%04x" (int (char c))))))

(defn- quoted [s]
  (str \" (str/escape s escape) \"))

(defn- key-text [k]
  (if (keyword? k)
    (-> (subs (str k) 1) (str/replace "-" "_") (str/replace "?" ""))
    (str k)))

(defn- number-text [x]
  (cond (ratio? x)                             (str (double x))
        (and (float? x)
             (not (Double/isFinite (double x)))) "null"
        :else                                  (str x)))

(declare write)

(defn- pair [[k v]]
  (str (quoted (key-text k)) ":" (write v)))

(defn write
  "`x` as JSON text. What JSON has no form for is written as a string."
  ^String [x]
  (cond (nil? x)     "null"
        (boolean? x) (str x)
        (number? x)  (number-text x)
        (map? x)     (str "{" (str/join "," (map pair x)) "}")
        (coll? x)    (str "[" (str/join "," (map write x)) "]")
        (keyword? x) (quoted (subs (str x) 1))
        :else        (quoted (str x))))
