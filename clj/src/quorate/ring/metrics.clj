(ns quorate.ring.metrics
  "Counts requests, for Prometheus (text format 0.0.4)."
  (:require [clojure.string :as str])
  (:import (java.util.concurrent ConcurrentHashMap)
           (java.util.concurrent.atomic LongAdder)
           (java.util.function Function)))

(set! *warn-on-reflection* true)

(def content-type "What a scraper expects." "text/plain; version=0.0.4; charset=utf-8")

(def ^:private new-adder
  (reify Function (apply [_ _] (LongAdder.))))

(defn registry
  "Fresh counters."
  []
  {:requests (ConcurrentHashMap.), :nanos (ConcurrentHashMap.), :in-flight (LongAdder.)})

(defn- add! [^ConcurrentHashMap counters k ^long n]
  (.add ^LongAdder (.computeIfAbsent counters k new-adder) n))

(defn- method-label
  "One of a few, whatever a client sends."
  [method]
  (if (contains? #{:get :head :put :delete} method) (str/upper-case (name method)) "other"))

(defn began!
  "Notes a request; returns the time of now for `ended!`."
  ^long [registry]
  (.increment ^LongAdder (:in-flight registry))
  (System/nanoTime))

(defn alone?
  "Whether no more than one request waits for its answer."
  [{:keys [in-flight]}]
  (<= (.sum ^LongAdder in-flight) 1))

(defn ended!
  "Notes the answer to a request that began at `began`."
  [{:keys [requests nanos in-flight]} method status ^long began]
  (let [label (method-label method)]
    (.decrement ^LongAdder in-flight)
    (add! requests [label status] 1)
    (add! nanos label (- (System/nanoTime) began))))

(defn- family
  "One metric: its help, its type, its samples as `[suffix labels value]`."
  [metric help type samples]
  (str "# HELP " metric " " help "\n# TYPE " metric " " type "\n"
       (str/join (for [[suffix labels value] samples]
                   (str metric suffix labels " " value "\n")))))

(defn- sum [^LongAdder adder] (.sum adder))

(defn- requests-by-method [requests]
  (reduce (fn [counts [[label _] adder]] (update counts label (fnil + 0) (sum adder)))
          (sorted-map) requests))

(defn exposition
  "The counters as text."
  [{:keys [requests nanos in-flight]}]
  (str (family "quorate_http_requests_total" "Requests answered, by method and status." "counter"
               (for [[[label status] adder] (sort-by key requests)]
                 ["" (str "{method=\"" label "\",status=\"" status "\"}") (sum adder)]))
       (family "quorate_http_request_seconds" "Time from a request's headers to its answer." "summary"
               (mapcat (fn [[label n]]
                         (let [labels (str "{method=\"" label "\"}")]
                           [["_sum" labels (/ (double (sum (get nanos label (LongAdder.)))) 1e9)]
                            ["_count" labels n]]))
                       (requests-by-method requests)))
       (family "quorate_http_requests_in_flight" "Requests not answered yet." "gauge"
               [["" "" (sum in-flight)]])))
