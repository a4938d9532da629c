(ns quorate.fluree.group
  "A consumer of fluree/raft's API as fluree/server and fluree/ledger are: they carry the messages themselves, find the
  leader by polling, and forward entries with `register-callback` and a `:new-command` message. Only the namespace that
  they require is another."
  (:require [clojure.core.async :as async]
            [clojure.edn :as edn]
            [clojure.java.io :as io]
            [clojure.string :as str]
            [clojure.tools.logging :as log]
            [clojure.walk :as walk]
            [quorate.raft :as raft])
  (:import (java.io File FileOutputStream)
           (java.util Base64)))

(set! *warn-on-reflection* true)

;; ------------------------------------------------------------------------------------------------- the connections

(defn network
  "What connects the groups of one test: their inboxes by server, and the answers that are waited for by message."
  []
  {:inboxes (atom {}), :waiting (atom {}), :inbound (atom 0)})

(defn- frozen
  "A message as the text that would cross the wire."
  [message]
  (pr-str (walk/postwalk (fn [x]
                                   (if (bytes? x)
                                     {::bytes (.encodeToString (Base64/getEncoder) ^bytes x)}
                                     x))
                                 message)))

(defn- thawed [text]
  (walk/postwalk (fn [x]
                           (if-let [data (::bytes x)]
                             (.decode (Base64/getDecoder) ^String data)
                             x))
                         (edn/read-string text)))

(defn send-rpc
  "fluree's `:send-rpc-fn`: `(raft-state server operation data callback)`. Returns at once."
  [{:keys [inboxes waiting]}]
  (fn [raft server operation data callback]
    (when-let [inbox (get @inboxes server)]
      (let [id     (str (random-uuid))
            header {:op operation, :from (:this-server raft), :to server, :msg-id id}]
        (when callback
          (swap! waiting assoc id callback))
        (async/put! inbox (frozen [header data]))))))

(defn- consume!
  "Takes one message that came in for `raft`."
  [{:keys [inboxes waiting inbound]} raft text]
  (let [[{:keys [op msg-id from to] :as header} data] (thawed text)
        respond (fn [x]
                  (when-let [inbox (get @inboxes from)]
                    (async/put! inbox (frozen [(assoc header :op (keyword (str (name op) "-response")), :from to, :to from)
                                               (when-not (instance? Throwable x) x)]))))]
    (swap! inbound inc)
    (cond
      (str/ends-with? (name op) "-response")
      (when-let [callback (get @waiting msg-id)]
        (swap! waiting dissoc msg-id)
        (callback data))

      (= :new-command op)
      (raft/new-command raft (raft/map->RaftCommand {:entry (:entry data), :id (:id data)}) respond)

      :else
      (raft/invoke-rpc raft op data respond))))

(def ^:private inbox-max "Messages that wait for a group." 8192)

(defn- listen! [{:keys [inboxes] :as network} server raft]
  (let [inbox (async/chan (async/sliding-buffer inbox-max))]
    (swap! inboxes assoc server inbox)
    (async/thread
      (loop []
        (when-let [text (async/<!! inbox)]
          (try
            (consume! network raft text)
            (catch Exception e
              (log/debug e "A message was dropped.")))
          (recur))))
    inbox))

;; ------------------------------------------------------------------------------------------------------- snapshots

(defn- snapshot-file ^File [path index]
  (io/file path (str index ".snapshot")))

(defn- list-indexes [path]
  (->> (.listFiles (io/file path))
       (keep (fn [^File file] (some-> (re-matches #"(\d+)\.snapshot" (.getName file)) second parse-long)))
       sort
       vec))

(defn- snapshot-functions [path state]
  {:snapshot-write        (fn [index done]
                            (io/make-parents (snapshot-file path index))
                            (spit (snapshot-file path index) (pr-str @state))
                            (done))
   :snapshot-reify        (fn [index] (reset! state (edn/read-string (slurp (snapshot-file path index)))))
   :snapshot-xfer         (fn [index _part]
                            {:parts 1, :data (.getBytes ^String (slurp (snapshot-file path index)) "UTF-8")})
   :snapshot-install      (fn [{:keys [snapshot-index snapshot-part snapshot-data]}]
                            (io/make-parents (snapshot-file path snapshot-index))
                            (with-open [out (FileOutputStream. (snapshot-file path snapshot-index) (< 1 (long snapshot-part)))]
                              (.write out ^bytes snapshot-data)))
   :snapshot-list-indexes (fn [] (list-indexes path))})

;; ------------------------------------------------------------------------------------------------------- the group

(defn- apply-entry [state [op k v expected]]
  (case op
    :write (do (swap! state assoc k v) true)
    :read  (get @state k)
    :cas   (let [equal? (= expected (get @state k))]
             (when equal? (swap! state assoc k v))
             equal?)
    :fail  (throw (ex-info "as asked" {}))))

(defn start
  "A group of `server` in `directory`, one of `servers` on `network`. `more` goes into the configuration."
  [network directory server servers more]
  (let [state  (atom {})
        send   (send-rpc network)
        config (merge {:this-server server, :servers servers, :log-directory (str (io/file directory "log"))
                       :join? false, :only-leader-snapshots false
                       :event-chan (async/chan), :command-chan (async/chan)
                       :send-rpc-fn send, :entries-max 50, :log-history 10, :catch-up-rounds 10
                       :timeout-ms 1500, :heartbeat-ms 250
                       :state-machine (fn [entry _raft-state] (apply-entry state entry))}
                      (snapshot-functions (io/file directory "snapshots") state)
                      more)
        raft   (raft/start config)]
    {:raft raft, :this-server server, :state-atom state, :send send, :network network
     :inbox (listen! network server raft)
     :event-chan (:event-chan config), :command-chan (:command-chan config)}))

(defn stop!
  "Closes the group and takes it off the network."
  [{:keys [raft network this-server inbox]}]
  (swap! (:inboxes network) dissoc this-server)
  (async/close! inbox)
  (raft/close raft))

(defn leader
  "The leader as this group knows it, asked for every 100 ms; nil after `timeout-ms`."
  [{:keys [raft]} timeout-ms]
  (loop [left (quot (long timeout-ms) 100)]
    (let [answer (promise)]
      (raft/get-raft-state raft (fn [state] (deliver answer (:leader state))))
      (or (deref answer 1000 nil)
          (when (pos? left)
            (Thread/sleep 100)
            (recur (dec left)))))))

(defn- at-leader
  "`(here)` when this group leads; otherwise registers `callback` under a fresh id and has `(there leader id)` send it on."
  [{:keys [raft this-server] :as group} timeout-ms callback here there]
  (let [found (leader group 20000)]
    (if (= this-server found)
      (here)
      (let [id (str (random-uuid))]
        (raft/register-callback raft id timeout-ms callback)
        (there found id)))))

(defn new-entry
  "Sends `entry` to the leader; `callback` gets what this group's state machine returned."
  [{:keys [raft send] :as group} entry timeout-ms callback]
  (at-leader group timeout-ms callback
             (fn [] (raft/new-entry raft entry callback timeout-ms))
             (fn [leader id] (send raft leader :new-command {:id id, :entry entry} nil))))

(defn call!
  "[[new-entry]], and waits."
  [group entry]
  (let [answer (promise)]
    (new-entry group entry 5000 (fn [x] (deliver answer x)))
    (deref answer 10000 ::never)))

(defn change-server!
  "Asks the leader's group to `:add-server` or `:remove-server`, on its command channel as fluree/ledger does. Returns what the
  callback got."
  [{:keys [command-chan]} operation server]
  (let [answer (promise)]
    (async/put! command-chan [operation [(str (random-uuid)) server] (fn [x] (deliver answer x))])
    (deref answer 20000 ::never)))
