(ns quorate.cluster.refusal-test
  "What a server cannot start with: one sentence on stderr, a non-zero exit status, no stack trace."
  (:require [clojure.string :as str]
            [clojure.test :refer [are deftest is]]
            [quorate.cluster.http :as http]
            [quorate.cluster.nodes :as nodes]
            [quorate.cluster.process :as process])
  (:import (java.net InetAddress ServerSocket)))

(set! *warn-on-reflection* true)

(defn- refusal
  "The one line with which a server with the environment gives up; nil when it gives up in another way, or not at all."
  [variables]
  (let [server (process/launch variables)
        status (process/wait-exit server 60)
        lines  (str/split-lines (process/err-text server))]
    (is (= 1 status) (process/report server))
    (is (= 1 (count lines)) (process/report server))
    (is (not (re-find #"Exception|\tat |Error:" (process/err-text server))) (process/report server))
    (first lines)))

(deftest bad-configuration
  (nodes/with-folder
    (fn [folder]
      (let [[port] (process/free-ports 1)
            base   (nodes/variables folder [port] port)]
        (are [variables pattern] (re-find pattern (str (refusal (merge base variables))))
          {"PORT" "http"}                       #"PORT is \"http\""
          {"CLUSTER" "localhost:4000"}          #"CLUSTER has the entry \"localhost:4000\""
          {"CLUSTER" (str "http://localhost:" port)} #"this server itself"
          {"JOIN" "true"}                       #"lists no server to join")))))

(deftest nobody-to-join
  (nodes/with-folder
    (fn [folder]
      (let [[port & others :as ports] (process/free-ports 3)
            sentence (refusal (assoc (nodes/variables folder ports port) "JOIN" "true"))]
        (is (str/includes? (str sentence) (str "none of http://localhost:" (first others) ", http://localhost:" (second others) " answered")))))))

(deftest a-used-port
  (nodes/with-folder
    (fn [folder]
      (let [[port] (process/free-ports 1)
            used   (fn [number pattern]
                     (with-open [_ (ServerSocket. (int number) 1 (InetAddress/getByName "127.0.0.1"))]
                       (is (re-find pattern (str (refusal (nodes/variables folder [port] port)))))))]
        (used port (re-pattern (str "port " port)))
        (used (+ 10000 (long port)) (re-pattern (str (+ 10000 (long port)))))))))

(deftest a-locked-directory
  (nodes/with-folder
    (fn [folder]
      (let [[port other] (process/free-ports 2)
            [server]     (nodes/start (nodes/variables folder [port] port))
            sentence     (refusal (assoc (nodes/variables folder [other] other) "DATA_DIR" (str folder "/" port)))]
        (is (re-find #"use|lock" (str sentence)))
        (is (http/ready? server) "the one that holds it serves on")))))
