(ns quorate.codec-test
  "What an entry is on its way through the log: the same value afterwards, or an error at the call."
  (:require [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [clojure.test.check :as tc]
            [clojure.test.check.generators :as gen]
            [clojure.test.check.properties :as prop]
            [quorate.impl.codec :as codec])
  (:import (clojure.lang ExceptionInfo PersistentQueue)
           (java.io File)
           (java.time Instant)
           (java.util Date UUID)))

(set! *warn-on-reflection* true)

(defrecord Point [x y])
(deftype Opaque [x])

(defn- there-and-back [value]
  (codec/decode (codec/encode value)))

(defn- refusal
  "The ex-data and message of the refusal to encode `value`; nil when it was encoded."
  [value]
  (try (codec/encode value) nil
       (catch ExceptionInfo e (assoc (ex-data e) :message (ex-message e)))))

;; ---------------------------------------------------------------------------------------------- what goes through

(def ^:private odd-scalars
  (gen/one-of
   [gen/any-printable-equatable
    (gen/fmap #(Date. (long %)) (gen/choose -100000000000000 300000000000000))
    (gen/fmap #(Instant/ofEpochSecond % 123456789) (gen/choose -100000000000 100000000000))
    gen/uuid
    (gen/fmap #(bigdec (/ % 128)) gen/size-bounded-bigint)
    (gen/fmap (fn [[unscaled scale]] (BigDecimal. (biginteger unscaled) (int scale)))
              (gen/tuple gen/size-bounded-bigint (gen/choose -400 400)))
    gen/ratio
    (gen/fmap char (gen/choose 0 65535))
    (gen/fmap #(apply str (map char %)) (gen/vector (gen/choose 0 65535)))
    (gen/elements [##Inf ##-Inf 0.0 -0.0 Double/MIN_VALUE Double/MAX_VALUE Long/MIN_VALUE Long/MAX_VALUE nil false true])
    (gen/fmap (fn [[x y]] (->Point x y)) (gen/tuple gen/small-integer gen/string))
    (gen/fmap (fn [[n v]] (tagged-literal (symbol "app" (str "t" n)) v)) (gen/tuple gen/nat gen/small-integer))]))

(def ^:private any-key
  "Without sorted collections: as keys these cannot be compared with every other key, not even by `=`."
  (gen/recursive-gen
   (fn [inner]
     (gen/one-of [(gen/vector inner) (gen/list inner) (gen/set inner) (gen/map inner inner)]))
   odd-scalars))

(def ^:private any-value
  (gen/recursive-gen
   (fn [inner]
     (gen/one-of [(gen/vector inner) (gen/list inner) (gen/set any-key) (gen/map any-key inner)
                  (gen/fmap #(into PersistentQueue/EMPTY %) (gen/vector inner))
                  (gen/fmap #(into (sorted-map) %) (gen/map gen/string inner))
                  (gen/fmap #(into (sorted-set) %) (gen/vector gen/small-integer))
                  (gen/fmap #(map identity %) (gen/vector inner))]))
   any-key))

(deftest whatever-is-generated-comes-back-equal
  (let [result (tc/quick-check 2000 (prop/for-all [value any-value] (= value (there-and-back value))) :max-size 40)]
    (is (true? (:pass? result)) (pr-str (:seed result) (get-in result [:shrunk :smallest])))))

(deftest every-char-comes-back
  (doseq [n (range 65536)
          :let [c (char n)]]
    (when-not (= [c] (there-and-back [c]))
      (is (= [c] (there-and-back [c])) (str "char " n)))
    (let [s (str "a" c "b")]
      (when-not (= s (there-and-back s))
        (is (= s (there-and-back s)) (str "string with char " n))))))

(deftest entries-keep-their-types
  (doseq [value [nil false true 1 1N 1.0 1.5M 2/3 \newline "" "λ" 'a 'a/b :k :k/l :1 (symbol "a'") '/ :a.b/c
                 #inst "2024-02-29T12:00:00.001" #uuid "00000000-0000-0000-0000-000000000001"
                 (Instant/parse "2024-02-29T12:00:00.123456789Z") (->Point 1 2)
                 (sorted-map 1 2) (sorted-set 3 1 2) (conj PersistentQueue/EMPTY 1) (tagged-literal 'my/tag {:a 1})]
          :let [back (there-and-back value)]]
    (is (= value back))
    (is (= (class value) (class back)))))

(deftest numbers-of-java-keep-their-value
  (is (= 7 (there-and-back (int 7)) (there-and-back (short 7)) (there-and-back (byte 7)) (there-and-back (biginteger 7))))
  (is (= (float 0.1) (there-and-back (float 0.1))))
  (is (Double/isNaN (there-and-back ##NaN))))

(deftest collections-of-java-go-as-clojure-s
  (is (= [1 [2]] (there-and-back (java.util.LinkedList. [1 (java.util.LinkedList. [2])]))))
  (is (= {:a 1} (there-and-back (java.util.HashMap. {:a 1}))))
  (is (= #{:a} (there-and-back (java.util.HashSet. [:a])))))

(deftest byte-arrays-travel-as-they-are
  (let [all (byte-array (range -128 128))]
    (is (= (seq all) (seq ^bytes (there-and-back all))))
    (is (= 257 (alength (codec/encode all))) "one format byte, no more")
    (is (= (seq all) (seq ^bytes (:b (there-and-back {:b all})))) "inside a value, too")))

(deftest a-record-whose-class-is-unknown-stays-a-tagged-literal
  (let [foreign (codec/decode (.getBytes (str (char codec/format-edn) "#no.such.Rec {:a 1}") "UTF-8"))]
    (is (= (tagged-literal 'no.such.Rec {:a 1}) foreign))
    (is (= foreign (there-and-back foreign)) "and goes on as it came")))

(deftest a-tag-cannot-make-anything-but-a-record
  (is (= (tagged-literal 'java.util.Date {}) (codec/decode (.getBytes (str (char 1) "#java.util.Date {}") "UTF-8")))))

(deftest the-printer-s-variables-do-not-matter
  (let [value {:a/b (range 100), :a/c {:d {:e {:f {:g "text\n"}}}}, :m (with-meta [1] {:meta true}), :p (->Point 1 2)}
        plain (seq (codec/encode value))]
    (binding [*print-length* 3, *print-level* 2, *print-namespace-maps* true, *print-meta* true, *print-dup* true,
              *print-readably* false, *read-eval* false]
      (is (= plain (seq (codec/encode value)))))))

;; ---------------------------------------------------------------------------------------------- what does not

(deftest what-cannot-be-read-back-is-refused-by-name-and-place
  (doseq [[value path said] [[{:a [1 inc]} [:a 1] "a function"]
                             [[#"x+"] [0] "a regular expression"]
                             [{:k {:state (atom 1)}} [:k :state] "an atom"]
                             [(Object.) [] "java.lang.Object"]
                             [(list 1 (Opaque. 2)) [1] "Opaque"]
                             [#{(Thread/currentThread)} [:quorate/element] "Thread"]
                             [{(Object.) 1} [:quorate/key] "Object"]
                             [[(int-array 2)] [0] "[I"]
                             [[(eduction (map inc) [1])] [0] "Eduction"]
                             [[(java.sql.Timestamp. 1)] [0] "Timestamp"]
                             [#'clojure.core/inc [] "Var"]
                             [[String] [0] "a class (java.lang.String)"]
                             [[(delay 1)] [0] "Delay"]
                             [(tagged-literal 'inst "2024") [] "inst"]
                             [[(tagged-literal 'quorate/bytes "x")] [0] "quorate/bytes"]
                             [{:p (->Point 1 inc)} [:p :y] "a function"]]
          :let [{:keys [error message] :as data} (refusal value)]]
    (is (= :raft/unreadable error) (str (class value)))
    (is (= path (:path data)) message)
    (is (some-> message (str/includes? said)) message)
    (is (class? (:class data)))))

(deftest names-that-print-as-something-else-are-refused
  (doseq [token [(keyword "a b") (keyword "a]") (keyword "") (keyword "a" "") (keyword "" "a") (keyword "a;b") (keyword "a\"")
                 (keyword "a" "1") (keyword "a\n") (keyword "\ud800") (keyword "a,b") (keyword ":a")
                 (symbol "nil") (symbol "true") (symbol "1a") (symbol "+1") (symbol ":a") (symbol "") (symbol "a b") (symbol "#a")
                 (symbol "a/b" "c") (symbol "##NaN") (symbol "^a") (symbol "~a") (symbol "-1")]]
    (is (= [:raft/unreadable [:x]] ((juxt :error :path) (refusal {:x token}))) (pr-str (str token))))
  (doseq [token [:a-b :a.b/c-d :1 :+ :- :a:b :a/b.c (keyword "a" "b/c") 'a.b 'x* '+ '- '-a '.b :é 'λ/µ :a' (symbol "%1")]]
    (is (= token (there-and-back token)))))

(deftest equal-keys-that-java-keeps-apart-are-refused
  (is (= :raft/unreadable (:error (refusal (doto (java.util.HashSet.) (.add 1) (.add (int 1)))))))
  (is (= :raft/unreadable (:error (refusal (hash-set Double/NaN (Double/valueOf "NaN")))))))

(deftest sorted-keys-that-no-reader-can-compare-are-refused
  (is (= :raft/unreadable (:error (refusal (assoc {{0 0} 0} (sorted-map "" 0) 0)))))
  (let [comparable {(sorted-map "a" 0) 0, {"b" 0} 0}]
    (is (= comparable (there-and-back comparable)))))

(deftest the-infinite-and-the-bottomless-end-at-a-limit
  (is (= :raft/too-large (:error (refusal (range)))))
  (is (= :raft/too-large (:error (refusal {:a (repeat "x")}))))
  (is (= :raft/too-large (:error (refusal (apply str (repeat 9000000 \a))))))
  (is (= :raft/too-large (:error (refusal (byte-array codec/entry-bytes-max)))))
  (is (some? (codec/encode (byte-array (dec codec/entry-bytes-max)))))
  (is (= :raft/too-large (:error (refusal (apply str (repeat 5000000 \λ))))) "the limit counts bytes, not characters")
  (testing "a value that contains itself, or is nested without end"
    (is (= :raft/unreadable (:error (refusal (nth (iterate vector 1) 600)))))
    (is (= :raft/unreadable (:error (refusal (let [a (java.util.ArrayList.)] (.add a a) a)))))
    (let [deep (nth (iterate vector 1) 512)]
      (is (= deep (there-and-back deep))))))

(deftest bytes-that-no-encoder-made-are-an-error
  (doseq [raw [[] [0] [3 1 2] [1] (cons 1 (.getBytes "{:a")) (cons 1 (.getBytes "1 2")) (cons 1 (.getBytes "#=(inc 1)"))]]
    (is (= :raft/corrupt (try (codec/decode (byte-array raw)) nil (catch ExceptionInfo e (:error (ex-data e)))))
        (pr-str raw))))

;; ---------------------------------------------------------------------------------------------- snapshots

(defn- via-file [value]
  (let [file (File/createTempFile "quorate" ".snapshot")]
    (try (codec/write-file! value file)
         (codec/read-file file)
         (finally (.delete file)))))

(deftest a-snapshot-streams-and-keeps-the-order-of-sorted-collections
  (let [state {:big (vec (range 200000)), :order (into (sorted-map) (map (juxt str identity)) (range 100)), :id (UUID/randomUUID)}
        back  (via-file state)]
    (is (= state back))
    (is (sorted? (:order back)))
    (is (= 5000000 (count (via-file (apply str (repeat 5000000 \λ))))) "no limit but the disk's"))
  (testing "what would make replicas differ is refused"
    (is (thrown-with-msg? ExceptionInfo #"comparator" (via-file {:a (sorted-map-by > 1 2)})))
    (is (thrown-with-msg? ExceptionInfo #"read back" (via-file (hash-set Double/NaN (Double/valueOf "NaN")))))))

(comment
  (clojure.test/run-tests))
