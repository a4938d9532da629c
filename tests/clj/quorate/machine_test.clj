(ns quorate.machine-test
  "A state machine cannot harm its node: whatever it does becomes the result of the entry."
  (:require [clojure.test :refer [deftest is testing]]
            [quorate.impl.codec :as codec]
            [quorate.impl.machine :as machine]
            [quorate.impl.records :as records])
  (:import (clojure.lang ExceptionInfo)
           (java.io File)
           (quorate.impl LazyMap Span)
           (quorate.impl.records Entry)))

(set! *warn-on-reflection* true)

(defn- entry
  ([index value] (entry index value (codec/encode value)))
  ([index _ ^bytes body] (records/->Entry index 3 1000 77 true 0xab 2 index (Span. body 0 (alength body)))))

(defn- run-all [m & values]
  (mapv (fn [i v] (machine/step! m (entry (inc i) v))) (range) values))

(defn- snapshot
  "What `m` reports of a snapshot at `path`."
  [m path]
  (let [outcome (promise)]
    (machine/begin-snapshot! m path #(deliver outcome %))
    (deref outcome 5000 ::never)))

(deftest a-reducer-steps-its-state-and-sees-what-the-leader-stamped
  (let [seen (atom [])
        m    (machine/reducer-machine "n" (fn [state n ctx] (swap! seen conj ctx) [(+ state n) (* 2 n)]) 10)]
    (is (= [2 4] (run-all m 1 2)))
    (is (= 13 (machine/current m)))
    (is (= [{:index 1, :term 3, :time-ms 1000, :id "ab.2.1"} {:index 2, :term 3, :time-ms 1000, :id "ab.2.2"}]
           (map #(dissoc % :seed) @seen)))
    (is (apply distinct? (map :seed @seen)) "each entry of a batch has a seed of its own")))

(deftest a-context-that-is-made-when-it-is-looked-into-is-a-map-like-any-other
  (let [plain {:a 1, :b [2]}
        made  (atom 0)
        fresh #(LazyMap. (fn [x] (swap! made inc) x) plain)]
    (is (zero? (do (fresh) @made)) "nobody looked")
    (doseq [look [#(= plain %) #(= % plain) #(= (hash plain) (hash %)) #(= (.hashCode ^Object plain) (.hashCode ^Object %))
                  #(= [1 nil :none] [(:a %) (:x %) (get % :x :none)]) #(let [{:keys [a]} %] (= 1 a)) #(= 2 (count %))
                  #(= {:a 1, :b [2], :c 3} (assoc % :c 3) (merge % {:c 3}) (into % {:c 3}) (conj % [:c 3])) #(= {:b [2]} (dissoc % :a))
                  #(= (pr-str plain) (pr-str %)) #(= 3 (reduce-kv (fn [n _ v] (+ n (if (int? v) v 2))) 0 %)) #(map? %) #(contains? % :a)
                  #(= {:m 1} (meta (with-meta % {:m 1}))) #(= (seq plain) (seq %)) #(= {} (empty %)) #(= {plain 1} {% 1})
                  #(= (codec/decode (codec/encode %)) plain) #(= {:a 1} (select-keys % [:a])) #(= {:a "1", :b "[2]"} (update-vals % str))]]
      (is (true? (look (fresh)))))
    (reset! made 0)
    (let [m (fresh)]
      (dotimes [_ 3] (:a m))
      (is (= 1 @made) "made once"))))

(deftest whatever-a-reducer-does-its-state-stays-whole
  (doseq [[what bad said] [["throws" (fn [_ _ _] (throw (ex-info "no luck" {:a 1}))) "no luck"]
                           ["throws an Error" (fn [_ _ _] (throw (StackOverflowError.))) "StackOverflowError"]
                           ["asserts" (fn [_ _ _] (assert false)) "Assert failed"]
                           ["returns nil" (fn [_ _ _] nil) "nil"]
                           ["returns the state alone" (fn [s _ _] s) "Long"]
                           ["returns three" (fn [s _ _] [s 1 2]) "a vector of 3"]
                           ["returns a list" (fn [s _ _] (list s 1)) "PersistentList"]]]
    (testing what
      (let [m (machine/reducer-machine "n" (fn [s e ctx] (if (= :bad e) (bad s e ctx) [(inc s) s])) 0)
            [a failure b] (run-all m :good :bad :good)]
        (is (= [0 1] [a b]))
        (is (= 2 (machine/current m)))
        (is (instance? ExceptionInfo failure))
        (is (= {:error :raft/state-machine, :index 2} (ex-data failure)))
        (is (re-find #"^State machine error: " (ex-message failure)))
        (is (.contains ^String (ex-message failure) ^String said) (ex-message failure))))))

(deftest fluree-s-state-machine-gets-the-raft-state-and-answers-errors-as-maps
  (let [m (machine/function-machine (fn [e rs] (if (= e :bad) (throw (Exception. "boom")) [e (:this-server rs)]))
                                    (fn [^Entry e] {:this-server "s", :index (.-index e)}))]
    (is (= [[1 "s"] {:error "State machine error: boom"} [2 "s"]] (run-all m 1 :bad 2)))
    (is (= :raft/no-snapshots (:error (ex-data (snapshot m "nowhere")))))
    (is (thrown-with-msg? ExceptionInfo #"no snapshot" (machine/replace! m "nowhere")))))

(deftest an-entry-that-cannot-be-read-is-an-error-and-not-the-end
  (let [m (machine/reducer-machine "n" (fn [s e _] [(conj s e) :ok]) [])]
    (is (= :raft/state-machine (:error (ex-data (machine/step! m (entry 1 nil (byte-array [9 9])))))))
    (is (= :ok (machine/step! m (entry 2 :x))))
    (is (= [:x] (machine/current m)))))

(deftest a-snapshot-is-the-state-as-it-was-when-it-was-begun
  (let [file  (File/createTempFile "quorate" ".snapshot")
        m     (machine/reducer-machine "n" (fn [s e _] [(conj s e) :ok]) [])
        _     (run-all m 1 2)
        ended (promise)]
    (try
      (machine/begin-snapshot! m (.getPath file) #(deliver ended %))
      (machine/step! m (entry 3 3))
      (is (nil? (deref ended 5000 ::never)))
      (let [other (machine/reducer-machine "n" (fn [s e _] [(conj s e) :ok]) nil)]
        (machine/replace! other (.getPath file))
        (is (= [1 2] (machine/current other))))
      (is (= ["a" "java.lang.NullPointerException"] (map machine/said [(Exception. "a") (NullPointerException.)])) "a failure always says something")
      (is (instance? java.io.IOException (snapshot m (str file "/no/such"))) "and what goes wrong is told")
      (finally (.delete file)))))
