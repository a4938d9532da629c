(ns quorate.ring.response
  "Answers, and what every kind of failure becomes as one."
  (:require [clojure.string :as str]
            [clojure.tools.logging :as log]
            [quorate.ring.json :as json])
  (:import (java.nio.charset StandardCharsets)
           (java.util.concurrent CompletionException ExecutionException TimeoutException)))

(set! *warn-on-reflection* true)

(def retry-after-seconds
  "After so long a client may try again when there was no quorum: longer than an election takes."
  1)

(defn answer
  "A response with the body `octets` of the given type. The length is stated, so that HEAD tells it too."
  [status content-type ^bytes octets]
  {:status  status
   :headers {"Content-Type" content-type, "Content-Length" (str (alength octets))}
   :body    octets})

(defn text
  "A response with a text, as it is."
  [status ^String s]
  (answer status "text/plain; charset=utf-8" (.getBytes s StandardCharsets/UTF_8)))

(defn sentence
  "A response with one sentence for a person."
  [status s]
  (text status (str s "\n")))

(defn json
  "A response with `x` as JSON."
  [status x]
  (answer status "application/json" (.getBytes (str (json/write x) "\n") StandardCharsets/UTF_8)))

(defn empty-body
  "A response without a body."
  [status]
  {:status status, :headers {}})

(defn header
  "The response with one more header."
  [response k v]
  (assoc-in response [:headers k] (str v)))

(defn unavailable
  "503: nothing wrong with the request; try again."
  [s]
  (header (sentence 503 s) "Retry-After" retry-after-seconds))

(defn not-allowed
  "405, with the methods that are allowed."
  [methods]
  (header (sentence 405 (str "Only " (str/join ", " methods) " are possible here.")) "Allow" (str/join ", " methods)))

(defn- cause-of
  "What failed, without the wrappings of a future."
  ^Throwable [^Throwable thrown]
  (if (and (or (instance? CompletionException thrown) (instance? ExecutionException thrown)) (.getCause thrown))
    (recur (.getCause thrown))
    thrown))

(def ^:private waiting-errors
  "Failures that time or another node can cure."
  #{:raft/unavailable :raft/not-leader :raft/overloaded :raft/shutdown :raft/io})

(def ^:private out-of-time
  "No majority of the cluster answered in time; a write may still take effect.")

(defn failure
  "The response that a failure becomes."
  [thrown]
  (let [cause (cause-of thrown)
        {:keys [error status reason]} (ex-data cause)]
    (cond (= :ring/request error)          (sentence status (ex-message cause))
          (or (= :raft/command-timeout error)
              (instance? TimeoutException cause)) (unavailable out-of-time)
          (contains? waiting-errors error) (unavailable (or reason (ex-message cause)))
          (= :raft/too-large error)        (sentence 413 (ex-message cause))
          (= :raft/invalid error)          (sentence 400 (ex-message cause))
          :else (do (log/error cause "A request failed:" (str (or (ex-message cause) (class cause))))
                    (sentence 500 "This server failed on the request; its log says why.")))))
