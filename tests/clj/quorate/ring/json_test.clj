(ns quorate.ring.json-test
  (:require [clojure.test :refer [are deftest]]
            [quorate.ring.json :as json]))

(deftest clojure-values-have-one-json-form
  (are [x text] (= text (json/write x))
    nil                             "null"
    true                            "true"
    -7                              "-7"
    12345678901234567890N           "12345678901234567890"
    1.5                             "1.5"
    1/4                             "0.25"
    Double/NaN                      "null"
    :role/leader                    "\"role/leader\""
    'a                              "\"a\""
    "a\"b\\c\n\u0001é\u2028"        "\"a\\\"b\\\\c\\n\\u0001é\\u2028\""
    []                              "[]"
    #{1}                            "[1]"
    {:last-applied 3, "key-1" nil}  "{\"last_applied\":3,\"key-1\":null}"
    {:voter? true}                  "{\"voter\":true}"))
