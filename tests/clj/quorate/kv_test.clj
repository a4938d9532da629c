(ns quorate.kv-test
  "quorate.kv with the real engine: one store, then three."
  (:require [clojure.test :refer [deftest is testing]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.kv :as kv]
            [quorate.raft :as raft])
  (:import (clojure.lang ExceptionInfo)
           (java.util.concurrent CompletableFuture TimeUnit)
           (java.util.function Function)))

(set! *warn-on-reflection* true)

(defn- with-store [f]
  (clusters/with-directory
   (fn [directory]
     (let [store (kv/open {:this-server "s", :servers ["s"], :log-directory directory, :log-level :error})]
       (try
         (is (eventually #(raft/leader? store)))
         (f store)
         (finally (kv/close store)))))))

(defmacro ^:private error-of [& body]
  `(try ~@body nil (catch ExceptionInfo e# (:error (ex-data e#)))))

(deftest put-get-delete
  (with-store
    (fn [store]
      (is (nil? (kv/get!! store "k")))
      (let [{:keys [revision] :as put} (kv/put!! store "k" {:a [1 2.5 #{:x}]})]
        (is (= {:succeeded? true, :revision revision, :existed? false} put))
        (is (= {:value {:a [1 2.5 #{:x}]}, :revision revision, :create-revision revision, :mod-revision revision}
               (kv/get!! store "k")))
        (is (= {:succeeded? true, :revision (inc revision), :existed? true} (kv/put!! store "k" nil)))
        (is (= {:value nil, :revision (inc revision), :create-revision revision, :mod-revision (inc revision)}
               (kv/get!! store "k" {:consistency :local})
               (kv/get!! store "k" {:consistency :lease})) "nil is a value")
        (is (= {:succeeded? true, :revision (+ 2 revision), :existed? true} (kv/delete!! store "k")))
        (is (= {:succeeded? true, :revision (+ 3 revision), :existed? false} (kv/delete!! store "k")))
        (is (nil? (kv/get!! store "k")))))))

(deftest equal-keys-are-one-key
  (with-store
    (fn [store]
      (doseq [[a b] [[1 1N] [1.0M 1.00M] [[1 :a] '(1 :a)] [0.0 -0.0] [nil nil] [:a/b :a/b] [#uuid "00000000-0000-0000-0000-000000000001" (java.util.UUID. 0 1)]]]
        (kv/put!! store a [:value a])
        (is (= [:value a] (:value (kv/get!! store b))) (pr-str a b)))
      (is (nil? (kv/get!! store 1.0)) "1 and 1.0 are two keys, as in Clojure")
      (is (= 7 (kv/count-keys!! store nil))))))

(deftest values-may-be-byte-arrays
  (with-store
    (fn [store]
      (kv/put!! store :b (byte-array [1 2 -1]))
      (is (= [1 2 -1] (vec (:value (kv/get!! store :b)))))
      (is (:succeeded? (kv/cas!! store :b (byte-array [1 2 -1]) (byte-array 0)))))))

(deftest futures-are-completable
  (with-store
    (fn [store]
      (let [f (kv/put! store "k" 1)]
        (is (instance? CompletableFuture f))
        (is (:succeeded? @f))
        (is (realized? f)))
      (is (= 1 (:value (deref (kv/get store "k") 5000 :late))))
      (is (= 2 (.get ^CompletableFuture (.thenApply ^CompletableFuture (kv/get store "k")
                                                    (reify Function (apply [_ x] (inc (:value x)))))
                     5 TimeUnit/SECONDS)))
      (is (re-find #"^#<quorate/Answer \{.*:value 1" (let [f (kv/get store "k")] @f (pr-str f))))
      (is (re-find #"^#<quorate.kv/Store s leader" (pr-str store))))))

(deftest conditional-writes
  (with-store
    (fn [store]
      (let [{r1 :revision} (kv/put!! store "k" 1 {:if-absent? true})]
        (is (= {:succeeded? false, :current {:value 1, :create-revision r1, :mod-revision r1}}
               (dissoc (kv/put!! store "k" 2 {:if-absent? true}) :revision)))
        (is (= {:succeeded? false, :current nil} (dissoc (kv/put!! store "none" 2 {:if-exists? true}) :revision)))
        (let [{r2 :revision} (kv/put!! store "k" 2 {:if-revision r1})]
          (is (false? (:succeeded? (kv/put!! store "k" 3 {:if-revision r1}))))
          (is (false? (:succeeded? (kv/delete!! store "k" {:if-revision r1}))))
          (is (true? (:succeeded? (kv/delete!! store "k" {:if-revision r2})))))))))

(deftest cas-compares-values-not-bytes
  (with-store
    (fn [store]
      (is (:succeeded? (kv/cas!! store "k" kv/absent {:a 1, :b 2})))
      (is (= {:succeeded? false, :current {:value {:a 1, :b 2}}}
             (-> (kv/cas!! store "k" kv/absent 0) (dissoc :revision) (update :current select-keys [:value]))))
      (is (:succeeded? (kv/cas!! store "k" (array-map :b 2N, :a 1) {:c 3})) "equal, though written otherwise")
      (is (false? (:succeeded? (kv/cas!! store "k" {:c 4} 0))))
      (is (= {:succeeded? false, :current nil} (dissoc (kv/cas!! store "none" 1 2) :revision)))
      (is (= {:c 3} (:value (kv/get!! store "k"))))
      (testing "of many who count up by cas, each counts"
        (kv/put!! store :n 0)
        (run! deref
              (mapv (fn [_]
                      (future
                        (dotimes [_ 25]
                          (loop [n (:value (kv/get!! store :n))]
                            (let [{:keys [succeeded? current]} (kv/cas!! store :n n (inc n))]
                              (when-not succeeded? (recur (:value current))))))))
                    (range 4)))
        (is (= 100 (:value (kv/get!! store :n))))))))

(deftest transactions-are-all-or-nothing
  (with-store
    (fn [store]
      (kv/put!! store "a" 1)
      (let [txn {:if [[:exists "a"] [:absent "b"] [:value "a" 1]], :then [[:put "b" 2] [:delete "a"] [:delete "zz"]], :else [[:put "c" 3]]}
            first-time (kv/txn!! store txn)]
        (is (= [true [{:existed? false} {:existed? true} {:existed? false}]] ((juxt :succeeded? :results) first-time)))
        (is (= {:succeeded? false, :failed-guard 0, :current nil, :results [{:existed? false}]}
               (dissoc (kv/txn!! store txn) :revision)))
        (is (= [nil 2 3] (map #(:value (kv/get!! store %)) ["a" "b" "c"])))
        (is (= :raft/invalid (error-of (kv/txn! store {:if [[:nope "a"]]}))))
        (is (= :raft/invalid (error-of (kv/txn! store {:then [[:put "a" 1] [:put "a" 2 3]]}))))))))

(deftest scans-by-prefix-in-pages
  (with-store
    (fn [store]
      @(CompletableFuture/allOf (into-array CompletableFuture (for [i (range 25)] (kv/put! store [:user i] {:n i}))))
      (doseq [k ["user/1" "user/2" "uses" :user [:users 1] [:user]]] (kv/put!! store k k))
      (is (= ["user/1" "user/2"] (map :key (:entries (kv/scan!! store "user/")))))
      (is (= (cons [:user] (map #(vector :user %) (range 25))) (map :key (:entries (kv/scan!! store [:user])))))
      (is (= 26 (kv/count-keys!! store [:user])))
      (is (= 31 (kv/count-keys!! store nil) (count (:entries (kv/scan!! store nil {:keys-only? true})))))
      (is (= #{:key :create-revision :mod-revision} (set (keys (first (:entries (kv/scan!! store nil {:keys-only? true})))))))
      (let [pages (loop [page (kv/scan!! store [:user] {:limit 10}), pages []]
                    (if (:more? page)
                      (recur (kv/scan!! store [:user] {:limit 10, :after (:next page)}) (conj pages page))
                      (conj pages page)))]
        (is (= [10 10 6] (map (comp count :entries) pages)))
        (is (= (cons [:user] (map #(vector :user %) (range 25))) (mapcat #(map :key (:entries %)) pages))))
      (is (= :raft/invalid (error-of (kv/scan store nil {:limit 0}))))
      (is (= :raft/invalid (error-of (kv/get store "k" {:consistency :maybe})))))))

(deftest watches-see-every-change-in-order
  (with-store
    (fn [store]
      (let [seen  (atom [])
            one   (atom [])
            before (:revision (kv/put!! store [:w 0] :old))
            watch (kv/watch! store [:w] {:prefix? true} #(swap! seen conj %))
            exact (kv/watch! store [:w 1] {} #(swap! one conj %))]
        (doseq [i (range 100)] (kv/put! store [:w (mod i 3)] i))
        (kv/delete!! store [:w 1])
        (kv/put!! store [:other] 1)
        (let [changes (fn [events] (filter #(#{:put :delete} (:type %)) events))]
          (is (eventually #(= 101 (count (changes @seen)))))
          (is (= (range 100) (map :value (filter #(= :put (:type %)) @seen))))
          (is (apply < (map :revision (changes @seen))))
          (is (= {:type :delete, :key [:w 1]} (dissoc (last (changes @seen)) :revision)))
          (is (eventually #(= 34 (count (changes @one)))))
          (is (= #{[:w 1]} (set (map :key (changes @one)))))
          (testing "and, from a revision, those of the past"
            (let [past (atom [])
                  w    (kv/watch! store [:w] {:prefix? true, :from-revision before} #(swap! past conj %))]
              (is (eventually #(= 102 (count (changes @past)))))
              (is (= :old (:value (first (changes @past)))))
              (is (true? (kv/unwatch! store w)))))
          (is (true? (kv/unwatch! store watch)))
          (is (false? (kv/unwatch! store watch)))
          (kv/unwatch! store exact)
          (let [n (count @seen)]
            (kv/put!! store [:w 5] :after)
            (Thread/sleep 200)
            (is (= n (count @seen)) "an ended watch is silent")))))))

(deftest a-watch-may-use-the-store
  (with-store
    (fn [store]
      (kv/watch! store "from" {} (fn [{:keys [type value]}] (when (= :put type) (kv/put!! store "to" [:copy value]))))
      (kv/put!! store "from" 7)
      (is (eventually #(= [:copy 7] (:value (kv/get!! store "to"))))))))

(deftest raw-bytes-and-typed-values-never-meet
  (with-store
    (fn [store]
      (let [k (.getBytes "mykey"), v (byte-array [0 -1 10])]
        (is (= [true false] ((juxt :succeeded? :existed?) @(kv/raw-put! store k v))))
        (is (= (vec v) (vec (:value @(kv/raw-get store k)))))
        (is (nil? (kv/get!! store "mykey")))
        (is (nil? (kv/get!! store k)) "also not a byte array as a typed key")
        (is (zero? (kv/count-keys!! store nil)))
        (is (= [(vec k)] (map (comp vec :key) (:entries @(kv/raw-scan store (.getBytes "my"))))))
        (let [{:keys [mod-revision]} @(kv/raw-get store k)]
          (is (false? (:succeeded? @(kv/raw-put! store k v {:if-absent? true}))))
          (is (true? (:succeeded? @(kv/raw-put! store k (byte-array 0) {:if-revision mod-revision})))))
        (is (true? (:succeeded? @(kv/raw-txn! store {:if [[:value k (byte-array 0)]], :then [[:delete k]]}))))
        (is (= {:succeeded? true, :existed? false} (dissoc @(kv/raw-delete! store k) :revision)))
        (is (= :raft/invalid (error-of (kv/raw-put! store "k" v))))))))

(deftest what-is-no-key-or-value-is-refused-at-the-call
  (with-store
    (fn [store]
      (is (= :raft/unreadable (error-of (kv/put! store {:a 1} 1))))
      (is (= :raft/unreadable (error-of (kv/put! store ##NaN 1))))
      (is (= :raft/unreadable (error-of (kv/put! store "k" inc))))
      (is (= :raft/too-large (error-of (kv/put! store "k" (range)))))
      (is (= :raft/too-large (error-of (kv/put! store "k" (byte-array (- (* 8 1024 1024) 4))))))
      (is (= :raft/invalid (error-of (kv/put! store "k" 1 {:timeout-ms 0}))))
      (is (= :raft/invalid (error-of (kv/watch! store "k" {:from-revision -1} println))))
      (is (= :raft/invalid (error-of (kv/put! {} "k" 1)))))))

(deftest attaching-leaves-the-node-to-its-owner
  (clusters/with-directory
   (fn [directory]
     (let [node (raft/start {:this-server "s", :servers ["s"], :log-directory directory, :log-level :error, :machine :kv})]
       (try
         (let [store (kv/attach node)]
           (is (eventually #(raft/leader? node)))
           (is (:succeeded? (kv/put!! store 1 1)))
           (is (= :closed (kv/close store)))
           (is (= 1 (:value (kv/get!! store 1))) "the node still runs")
           (is (= :raft/invalid (error-of (raft/new-entry node 1 nil)))))
         (finally (raft/close node)))))))

(deftest three-stores-are-one
  (clusters/with-nodes ["a" "b" "c"] kv/open kv/close
    (fn [stores]
      (doseq [[server store] stores]
        (is (:succeeded? (kv/put!! store [:by server] server {:timeout-ms 10000}))))
      (doseq [store (vals stores), server (keys stores)]
        (is (= server (:value (kv/get!! store [:by server] {:timeout-ms 10000}))) "linearizable on every node"))
      (let [leader (first (filter raft/leader? (vals stores)))
            others (remove #(identical? leader %) (vals stores))]
        (kv/close leader)
        (is (eventually #(:succeeded? (kv/put!! (first others) "after" 1 {:timeout-ms 1000}))))
        (is (= 1 (:value (kv/get!! (second others) "after" {:timeout-ms 5000}))))
        (kv/close (first others))
        (is (contains? #{:raft/unavailable :raft/command-timeout}
                       (error-of (kv/put!! (second others) "lost" 1 {:timeout-ms 1500}))))
        (is (= 1 (:value (kv/get!! (second others) "after" {:consistency :local}))) "what it has can still be read")))))
