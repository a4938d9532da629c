(ns quorate.fluree.conventions-test
  "Which of fluree/raft's two conventions a function follows, and what errors of users' functions come to."
  (:require [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [clojure.tools.logging :as log]
            [quorate.impl.config :as config]
            [quorate.impl.conventions :as conventions]
            [quorate.impl.lanes :as lanes]
            [quorate.impl.report :as report]
            [quorate.raft.configuration :as configuration])
  (:import (clojure.lang ExceptionInfo)))

(set! *warn-on-reflection* true)

(defn- two-ways ([_] :one) ([_ _] :two))
(defn- many [_ & _more] :many)
(defmulti ^:private by-type (fn [x & _] (type x)))

(deftest arities-are-read-from-the-function
  (doseq [[f expected] {(fn [])                      {:fixed #{0}, :variadic nil}
                        (fn [_ _ _])                 {:fixed #{3}, :variadic nil}
                        two-ways                     {:fixed #{1 2}, :variadic nil}
                        #'two-ways                   {:fixed #{1 2}, :variadic nil}
                        many                         {:fixed #{}, :variadic 1}
                        (fn ([] 0) ([_ _ & _] 2))    {:fixed #{0}, :variadic 2}
                        (fn [^long x ^double _y] x)  {:fixed #{2}, :variadic nil}
                        (fn [& _])                   {:fixed #{}, :variadic 0}
                        by-type                      nil
                        :keyword                     nil
                        {:a :map}                    nil}]
    (is (= expected (conventions/arities f)) (pr-str f)))
  (testing "functions made by functions"
    (doseq [f [(partial two-ways 1) (constantly 1) (comp inc inc) (memoize two-ways) (with-meta two-ways {:a 1}) by-type :k]
            n [0 1 2 3 5]]
      (is (conventions/fits? f n))))
  (is (= [true true false] (map #(conventions/fits? many %) [1 9 0]))))

(def ^:private readme
  {:send-rpc-fn (fn [_server _msg _cb]), :snapshot-write (fn [_file _state]), :snapshot-reify (fn [])
   :snapshot-install (fn [_snapshot _index]), :snapshot-xfer (fn [_snapshot _server]), :snapshot-list-indexes (fn [_dir])})

(def ^:private source
  {:send-rpc-fn (fn [_rs _server _op _data _cb]), :snapshot-write (fn [_index _done]), :snapshot-reify (fn [_index])
   :snapshot-install (fn [_part]), :snapshot-xfer (fn [_index _part]), :snapshot-list-indexes (fn [])})

(defn- decisions [config]
  (into {} (map (juxt identity #(conventions/convention config %))) (keys conventions/forms)))

(defn- all [convention]
  (zipmap (keys conventions/forms) (repeat convention)))

(defn- refusal [f]
  (try (f) nil
       (catch ExceptionInfo e
         (is (= :raft/config (:error (ex-data e))))
         [(:key (ex-data e)) (ex-message e)])))

(deftest each-convention-is-recognised-without-a-switch
  (is (= (all :readme) (decisions readme)))
  (is (= (all :source) (decisions source)))
  (testing "by one function that leaves no choice"
    (doseq [k [:snapshot-reify :snapshot-install :snapshot-list-indexes :send-rpc-fn]
            [functions convention] [[readme :readme] [source :source]]
            :let [config (select-keys functions [:snapshot-write :snapshot-xfer k])]]
      (is (= [convention convention] (map #(conventions/convention config %) [:snapshot-write :snapshot-xfer])) (str k))))
  (testing "with variadic and multi-arity functions"
    (is (= (all :readme) (decisions (assoc readme :send-rpc-fn (fn [& _]), :snapshot-install two-ways))))
    (is (= (all :source) (decisions (assoc source :send-rpc-fn (fn [& _]), :snapshot-reify (fn ([]) ([_]))))))
    (is (= :readme (conventions/convention {:send-rpc-fn (fn ([_ _ _]) ([_ _ _ _]))} :send-rpc-fn)))))

(deftest each-function-that-fits-one-convention-decides-for-itself
  (let [mixed (assoc source :send-rpc-fn (:send-rpc-fn readme))]
    (is (= (assoc (all :source) :send-rpc-fn :readme) (decisions mixed)))))

(deftest callbacks-decides-where-arities-do-not
  (let [open {:snapshot-write (fn [_ _]), :snapshot-xfer two-ways}]
    (doseq [stated [:readme :source]]
      (is (= (all stated) (decisions (assoc open :callbacks stated))))))
  (is (= (assoc (all :source) :snapshot-write :readme, :snapshot-xfer :readme) (decisions (assoc source :callbacks :readme)))
      "and not where only the other fits")
  (let [contradicting {:snapshot-reify (fn []), :snapshot-install (fn [_]), :snapshot-write (fn [_ _])}
        [k said]      (refusal #(conventions/check! contradicting))]
    (is (= :callbacks k))
    (is (str/includes? said ":snapshot-reify follow fluree/raft's README, :snapshot-install its source"))
    (is (= :callbacks (first (refusal #(configuration/checked (merge {:this-server "a", :servers ["a"], :state-machine (fn [_ _])}
                                                                     contradicting)))))
        "nothing need be started to know")
    (is (nil? (refusal #(conventions/check! (assoc contradicting :callbacks :readme)))))
    (is (= :readme (conventions/convention (assoc contradicting :callbacks :readme) :snapshot-write)))))

(deftest where-nothing-tells-fluree-s-source-is-taken-and-said
  (let [lines (atom [])]
    (with-redefs [log/log* (fn [_ level _ message] (swap! lines conj [level message]))]
      (is (= :source (conventions/convention {:snapshot-write (fn [_ _])} :snapshot-write)))
      (conventions/check! {:snapshot-write (fn [_ _]), :snapshot-xfer (fn [& _])}))
    (is (= [:info] (map first @lines)))
    (is (re-find #":snapshot-write, :snapshot-xfer follow" (second (first @lines))))))

(deftest a-function-that-fits-neither-is-refused-at-start-with-both-forms
  (doseq [[k wrong counts] [[:send-rpc-fn (fn [_ _]) "2"]
                            [:snapshot-write (fn [_]) "1"]
                            [:snapshot-reify (fn [_ _]) "2"]
                            [:snapshot-install (fn ([]) ([_ _ _ & _])) "0, 3 or more"]
                            [:snapshot-xfer (fn [_ _ _]) "3"]
                            [:snapshot-list-indexes (fn [_ _]) "2"]]
          :let [[found message] (refusal #(config/checked (merge source {:this-server "a", :servers ["a"], :state-machine (fn [_ _])}
                                                                 {k wrong})))]]
    (is (= k found))
    (doseq [convention [:readme :source]]
      (is (str/includes? message (str "(fn " (get-in conventions/forms [k convention]) " ...)")) message))
    (is (str/includes? message (str "takes " counts " arguments")) message)))

;; ------------------------------------------------------------------------------------------------------ reports

(deftest errors-are-logged-kept-and-passed-to-error-fn
  (let [lines    (atom [])
        told     (atom [])
        pool     (lanes/pool "test-lanes")
        rt       {:config {:error-fn #(do (swap! told conj %) (throw (Exception. "worse")))}
                  :error-lane (lanes/lane pool), :last-error (atom nil)}
        failure  (Exception. "broken")]
    (with-redefs [log/log* (fn [_ level _ message] (swap! lines conj [level message]))]
      (is (nil? (report/report! rt :snapshot-write failure {:index 7})))
      (is (nil? (report/reported [rt :watch {:key :mine}] (throw failure))))
      (is (= 5 (report/reported [rt :watch {:key :mine}] 5)))
      (is (true? (lanes/stop! pool 5000)))
      (is (nil? (report/report! rt :callback (StackOverflowError.))) "also after the end")
      (is (nil? (report/report! {:this-server "a"} :snapshot-reify failure)) "and before there is a node"))
    (is (= [[:snapshot-write 7 nil] [:watch nil :mine] [:callback nil nil]] (map (juxt :where :index :key) @told)))
    (is (identical? failure (:error (first @told))))
    (is (= {:where :callback, :message "Error in :callback: java.lang.StackOverflowError"} (dissoc @(:last-error rt) :at)))
    (is (= 4 (count (filter #(re-find #"^Error in" (second %)) @lines))))
    (is (= 3 (count (filter #(= ":error-fn threw." (second %)) @lines))))))
