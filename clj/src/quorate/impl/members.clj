(ns quorate.impl.members
  "Changes of the members: asked for by a future, or by an operation in fluree's way."
  (:require [clojure.string :as str]
            [quorate.impl.config :as config]
            [quorate.impl.errors :as errors]
            [quorate.impl.node :as node]
            [quorate.impl.report :as report]
            [quorate.impl.wire :as wire])
  (:import (java.util UUID)
           (java.util.concurrent CompletableFuture)
           (java.util.function BiFunction)))

(set! *warn-on-reflection* true)

(def ^:const operation-ms
  "How long a change that was asked for by an operation may take; a future has a time of its own."
  60000)

;; ---------------------------------------------------------------------------------------------------- addresses

(defn address-of
  "Where `server` is: `given`, or what the configuration says, or its own name when that is an address or the messages go
  through `:send-rpc-fn`. Throws ex-info `:raft/config` when there is none."
  [{:keys [config]} server given]
  (if (= :user (:transport config))
    (config/server-text server)
    (let [stated (or given (config/stated-address config server))]
      (or (if stated
            (config/address :address stated)
            (config/address :servers server))
          (config/refuse! :address
                          (if stated
                            (str (pr-str stated) " is not an address; it must be \"host:port\".")
                            (str "The server " (pr-str server) " has no address: name it, \"host:port\".")))))))

(defn change!
  "Asks for the change `operation` (:add :add-learner :remove :transfer) of `server`, at `address` or \"\". Returns a
  CompletableFuture of true. Throws what a submission throws."
  ^CompletableFuture [rt operation server address timeout-ms]
  (node/request! rt wire/membership operation
                 (wire/membership-body operation (config/server-text server) address)
                 timeout-ms
                 (constantly true)))

;; --------------------------------------------------------------------------------------- operations in fluree's way

(defn- server-name? [x]
  (or (keyword? x) (and (string? x) (not (str/blank? x)))))

(defn asked
  "What the data of an operation asks for: `{:server :command-id :address}` out of a server's name (README), `[command-id
  server]` (source), either with an address behind, or such a map. nil when it is none of these."
  [data]
  (let [found (cond
                (server-name? data)                                {:server data}
                (and (sequential? data) (<= 2 (count data) 3))     (zipmap [:command-id :server :address] data)
                (map? data)                                        (select-keys data [:server :command-id :address]))]
    (when (server-name? (:server found))
      (update found :command-id #(if (nil? %) (str (UUID/randomUUID)) %)))))

(defn- refused
  ([error message] (refused error message nil))
  ([error message cause] (errors/error error message {:operation :new-command} cause)))

(def ^:private refusal-of {:add :raft/cannot-add-server, :remove :raft/cannot-remove-server})

(defn- pending-sentence [{:keys [op id]}]
  (str "Cannot have two configuration changes pending at once. Currently attempting to " (name op) " " id "."))

(defn- refusal
  "Why the change cannot be: an ex-info; nil when it can."
  [rt op {:keys [server] :as asked}]
  (let [{:keys [role members]} (node/status rt)
        member? (contains? (set (map #(config/server-text (:name %)) members)) (config/server-text (or server "")))
        kind    (refusal-of op)]
    (cond
      (nil? asked)
      (refused kind (str "The data must be a server's name, [command-id server], [command-id server address] or {:server ...}."))

      (and (not= :leader role) (not (:forward? (:config rt))))
      (refused :raft/not-leader "Server is not currently leader.")

      (and (= :add op) member?)
      (refused kind (str server " already exists in our network configuration."))

      (and (= :remove op) (not member?))
      (refused kind (str server " is not in our network configuration. Cannot remove."))

      (and (= :remove op) (= 1 (count members)))
      (refused kind "Cannot remove server if there are no other servers in the configuration."))))

(defn- message [op server]
  (case op
    :add    (str "The server " server " was asked to join; it votes when it has caught up with the log.")
    :remove (str "The server " server " is slated to be removed from the network.")))

(defn- over!
  "The change is over: a failure is reported, for whoever asked has his answer already."
  [rt op server failure]
  (reset! (:pending-server rt) nil)
  (when (and failure (not (node/closed? rt)))
    (report/report! rt (case op :add :add-server, :remove :remove-server) failure {:key server})))

(defn- begin!
  "Starts the change, when no other one asked for so is under way. Throws ex-info when it cannot be begun."
  [rt op {:keys [server address command-id]}]
  (let [target (if (= :add op) (address-of rt server address) "")
        claim  {:id server, :op op, :command-id command-id}]
    (when-not (compare-and-set! (:pending-server rt) nil claim)
      (throw (refused (refusal-of op) (pending-sentence @(:pending-server rt)))))
    (try
      (.handle (change! rt op server target operation-ms)
               (reify BiFunction
                 (apply [_ _done failure] (over! rt op server failure))))
      (catch Throwable t
        (reset! (:pending-server rt) nil)
        (throw t)))))

(defn operate!
  "Carries out `:add-server` or `:remove-server` (`op` is :add or :remove) in fluree's way: `pass!` gets, at once and once,
  `{:op :server :command-id :message}` when the change was begun, or an ex-info. How it ends shows in the members; a failure
  is reported."
  [rt op data pass!]
  (let [{:keys [server command-id] :as asked} (asked data)]
    (pass! (or (refusal rt op asked)
               (try
                 (begin! rt op asked)
                 {:op op, :server server, :command-id command-id, :message (message op server)}
                 (catch clojure.lang.ExceptionInfo e
                   (if (= :raft/config (:error (ex-data e)))
                     (refused (refusal-of op) (ex-message e) e)
                     e)))))))
