(ns quorate.impl.conventions
  "Which of fluree/raft's two conventions a user's function follows: that of its README, or that of its source.

  The two differ in how many arguments most functions take, so a function usually tells by itself. One that could be
  either follows the others of its configuration; `:callbacks` decides where they contradict each other."
  (:require [clojure.string :as str]
            [clojure.tools.logging :as log]
            [quorate.impl.errors :as errors])
  (:import (clojure.lang AFunction RestFn Var)
           (java.lang.reflect Method)))

(set! *warn-on-reflection* true)

(def forms
  "Each function whose shape differs: the argument lists of both conventions."
  {:send-rpc-fn           {:readme '[server msg callback], :source '[raft-state server operation data callback]}
   :snapshot-write        {:readme '[file state],          :source '[index done]}
   :snapshot-reify        {:readme '[],                    :source '[index]}
   :snapshot-install      {:readme '[snapshot index],      :source '[part-map]}
   :snapshot-xfer         {:readme '[snapshot server],     :source '[index part]}
   :snapshot-list-indexes {:readme '[directory],           :source '[]}})

(def snapshot-keys
  "The functions of users' snapshots, which follow one another where they leave it open."
  [:snapshot-write :snapshot-reify :snapshot-install :snapshot-xfer :snapshot-list-indexes])

;; --------------------------------------------------------------------------------------------------- arities

(defn- own-methods
  "The methods that the compiler made for the function of class `c`."
  [^Class c]
  (->> (iterate (fn [^Class k] (.getSuperclass k)) c)
       (take-while #(not (or (nil? %) (identical? AFunction %) (identical? RestFn %))))
       (mapcat (fn [^Class k] (.getDeclaredMethods k)))))

(defn arities
  "How many arguments `f` takes: `{:fixed #{n ...} :variadic n-or-nil}`, where `:variadic` is the least number that its
  `& rest` form needs. A var counts as what it holds. nil when that cannot be known: a multimethod, a keyword, a map, an
  object of another kind."
  [f]
  (let [f (if (instance? Var f) @f f)]
    (when (instance? AFunction f)
      {:fixed    (into #{}
                       (keep (fn [^Method m] (when (= "invoke" (.getName m)) (.getParameterCount m))))
                       (own-methods (class f)))
       :variadic (when (instance? RestFn f) (long (.getRequiredArity ^RestFn f)))})))

(defn fits?
  "True when `f` may be called with `n` arguments, or that cannot be known."
  [f n]
  (let [{:keys [fixed variadic] :as known} (arities f)]
    (or (nil? known)
        (contains? fixed (int n))
        (and (some? variadic) (>= (long n) (long variadic))))))

;; ------------------------------------------------------------------------------------------------- one function

(defn- shown [k convention]
  (str "(fn " (get-in forms [k convention]) " ...)"))

(defn- refuse! [k message]
  (throw (errors/error :raft/config message {:key k})))

(defn- takes [f]
  (let [{:keys [fixed variadic]} (arities f)
        counts (cond-> (mapv str (sort fixed))
                 variadic (conj (str variadic " or more")))]
    (str/join ", " counts)))

(defn- possible
  "The conventions that the function under `k` fits, a set. Throws ex-info `:raft/config` when it fits neither."
  [config k]
  (let [f     (get config k)
        found (into #{} (filter (fn [convention] (fits? f (count (get-in forms [k convention]))))) [:readme :source])]
    (when (empty? found)
      (refuse! k (str k " must be " (shown k :readme) ", as fluree/raft's README has it, or " (shown k :source)
                      ", as its source has it; this one takes " (takes f) " arguments.")))
    found))

(defn- given [config ks]
  (filter #(some? (get config %)) ks))

(defn- said
  "What the functions under `ks` that leave no choice say: a set of conventions."
  [config ks]
  (into #{} (comp (map #(possible config %)) (filter #(= 1 (count %))) cat) (given config ks)))

(defn- contradiction! [config k]
  (let [deciding (fn [convention]
                   (filter #(= #{convention} (possible config %)) (given config snapshot-keys)))]
    (refuse! :callbacks
             (str k " may be " (shown k :readme) " or " (shown k :source) ", and the others contradict each other: "
                  (str/join ", " (deciding :readme)) " follow fluree/raft's README, " (str/join ", " (deciding :source))
                  " its source. Say which one is meant: :callbacks :readme or :callbacks :source."))))

(defn- by-others
  "The convention that the other functions decide on for `k`, which fits both; nil when they say nothing."
  [config k]
  (let [family (said config snapshot-keys)
        rpc    (said config [:send-rpc-fn])]
    (case (count family)
      0 (first rpc)
      1 (first family)
      (contradiction! config k))))

(defn- decided
  "`[convention how]` for `k`; `how` is :stated, :itself, :others or :nothing."
  [config k]
  (let [fitting (if (some? (get config k)) (possible config k) #{:readme :source})
        stated  (:callbacks config)]
    (cond
      (contains? fitting stated) [stated :stated]
      (= 1 (count fitting))      [(first fitting) :itself]
      :else                      (if-let [convention (by-others config k)]
                                   [convention :others]
                                   [:source :nothing]))))

(defn convention
  "`:readme` or `:source`: how the function under `k`, one of [[forms]], is to be called. For a key without a function, how it
  would be. `:callbacks` in `config` decides for each function that fits it. Without, a function that fits one convention
  only decides for itself; any other follows the snapshot functions that did, then `:send-rpc-fn`, then fluree's source.
  Throws ex-info `:raft/config`: a function that fits neither, or a choice that others contradict about."
  [config k]
  (first (decided config k)))

(defn check!
  "Decides for every function of `config` that is there, and logs (info) where nothing told the convention. Returns nil.
  Throws what [[convention]] throws."
  [config]
  (let [open (filterv #(= :nothing (second (decided config %))) (given config (keys forms)))]
    (when (seq open)
      (log/info (str "Nothing tells which of fluree/raft's conventions " (str/join ", " (sort open))
                     " follow; they are called as its source does. :callbacks :readme asks for the other.")))))
