(ns quorate.keys-test
  "Equal keys are the same bytes, unequal ones are not, and bytes sort as keys do."
  (:require [clojure.test :refer [deftest is testing]]
            [clojure.test.check :as tc]
            [clojure.test.check.generators :as gen]
            [clojure.test.check.properties :as prop]
            [quorate.impl.keys :as keys])
  (:import (clojure.lang ExceptionInfo PersistentQueue)
           (java.time Instant)
           (java.util Arrays Date)))

(set! *warn-on-reflection* true)

(defn- enc ^bytes [x] (keys/encode 1 x))

(defn- same? [a b] (Arrays/equals (enc a) (enc b)))

(defn- order
  "-1, 0 or 1: how the bytes of the two sort, each byte taken unsigned."
  [a b]
  (Integer/signum (Arrays/compareUnsigned (enc a) (enc b))))

(defn- holds [trials property]
  (let [result (tc/quick-check trials property)]
    (is (:pass? result) (pr-str (get-in result [:shrunk :smallest])))))

(def ^:private integers
  (gen/one-of [gen/small-integer gen/large-integer gen/size-bounded-bigint
               (gen/fmap #(.shiftLeft (biginteger 1) %) (gen/choose 0 900))
               (gen/fmap #(.negate (.shiftLeft (biginteger 1) %)) (gen/choose 0 900))]))

(def ^:private decimals
  (gen/fmap (fn [[unscaled scale]] (BigDecimal. (biginteger unscaled) (int scale)))
            (gen/tuple (gen/one-of [gen/small-integer gen/size-bounded-bigint]) (gen/choose -300 300))))

(def ^:private texts
  (gen/one-of [gen/string gen/string-alphanumeric (gen/fmap #(apply str %) (gen/vector (gen/elements ["\u0000" "a" "ÿ" "\ud83d\ude00"])))]))

(def ^:private scalars
  (gen/one-of [integers decimals texts gen/keyword gen/keyword-ns gen/symbol gen/symbol-ns gen/boolean gen/uuid gen/ratio
               (gen/double* {:NaN? false})
               (gen/return nil)
               (gen/fmap char (gen/choose 0 65535))
               (gen/fmap #(Date. (long %)) gen/large-integer)
               (gen/fmap #(Instant/ofEpochSecond % 5) (gen/choose -1000000000 1000000000))]))

(def ^:private any-key
  (gen/recursive-gen (fn [inner] (gen/one-of [(gen/vector inner) (gen/list inner)])) scalars))

(deftest a-key-comes-back-equal
  (holds 3000 (prop/for-all [k any-key] (= k (keys/decode (enc k))))))

(deftest bytes-are-the-same-exactly-when-keys-are-equal
  (holds 3000 (prop/for-all [a any-key, b any-key] (= (= a b) (same? a b))))
  (doseq [[a b] [[1 1N] [1 (int 1)] [(biginteger 7) 7] [1.0 (float 1.0)] [0.0 -0.0] [1.0M 1.00M] [100M 1E+2M] [0M 0.00M]
                 [[1 2] '(1 2)] [[1 2] (map identity [1 2])] [[1] (conj PersistentQueue/EMPTY 1)] [[] ()]]]
    (is (= a b))
    (is (same? a b) (pr-str a b)))
  (doseq [[a b] [[1 1.0] [1 1M] [1.0 1.0M] ["a" :a] [:a 'a] [nil false] [nil []] [:a/b (keyword "a/b" "")] ["" []] [\a "a"]
                 [(keyword "a" "b/c") (keyword "a/b" "c")] [["a" "b"] ["ab"]] [["a\u0000"] ["a" nil]] [[[1] 2] [[1 2]]]]]
    (is (not (same? a b)) (pr-str a b))))

(deftest bytes-sort-as-keys-do
  (holds 3000 (prop/for-all [a integers, b integers] (= (Integer/signum (compare a b)) (order a b))))
  (holds 3000 (prop/for-all [a decimals, b decimals] (= (Integer/signum (compare a b)) (order a b))))
  (holds 3000 (prop/for-all [a (gen/double* {:NaN? false}), b (gen/double* {:NaN? false})]
                (= (Integer/signum (compare a b)) (order a b))))
  (holds 2000 (prop/for-all [a gen/string-ascii, b gen/string-ascii] (= (Integer/signum (compare a b)) (order a b))))
  (holds 2000 (prop/for-all [a (gen/vector gen/small-integer 3), b (gen/vector gen/small-integer 3)]
                (= (Integer/signum (compare a b)) (order a b))))
  (testing "a shorter vector is before all that begin with it"
    (is (neg? (order [1] [1 nil])))
    (is (neg? (order "a" "a\u0000")))))

(deftest a-prefix-is-a-prefix-of-the-bytes
  (let [begins? (fn [prefix k]
                  (let [p ^bytes (keys/encode-prefix 1 prefix), b (enc k)]
                    (and (<= (alength p) (alength b))
                         (Arrays/equals p (Arrays/copyOf b (alength p))))))]
    (is (begins? "user/" "user/1"))
    (is (begins? "" "x"))
    (is (not (begins? "user/" "uses")))
    (is (not (begins? "" :x)) "a string prefix is of strings")
    (is (begins? [:user] [:user 1]))
    (is (begins? [:user] [:user]))
    (is (not (begins? [:user] [:users])))
    (is (begins? nil :anything))
    (is (begins? nil [1]))))

(deftest spaces-never-meet
  (holds 500 (prop/for-all [a any-key, b any-key]
               (not= (aget ^bytes (keys/encode 1 a) 0) (aget ^bytes (keys/encode 2 b) 0)))))

(deftest what-cannot-be-a-key-is-refused
  (doseq [x [{} #{1} {:a 1} ##NaN [##NaN] (Object.) inc #"x" (atom 1) "\ud800" [[{}]] (java.sql.Timestamp. 1)
             (apply str (repeat 70000 \a)) (range) (nth (iterate vector 1) 40) (java.util.concurrent.atomic.AtomicLong. 1)]]
    (is (= :raft/unreadable (try (enc x) nil (catch ExceptionInfo e (:error (ex-data e))))) (str (class x))))
  (is (thrown? ExceptionInfo (keys/encode-prefix 1 :a))))

(deftest bytes-that-are-no-key-are-an-error
  (doseq [raw [[1] [1 0x99] [1 0x20 65] [1 0x10 0x85 1] [1 0x30 0x02]]]
    (is (= :raft/corrupt (try (keys/decode (byte-array (map unchecked-byte raw))) nil
                              (catch ExceptionInfo e (:error (ex-data e)))))
        (pr-str raw))))
