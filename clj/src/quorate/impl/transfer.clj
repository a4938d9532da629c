(ns quorate.impl.transfer
  "How users' snapshots get from one node to another: a node that needs one asks for its parts, and a node that has it calls
  the user's `:snapshot-xfer`.

  A question is an EDN map, encoded as an entry is:

      {:ask :part, :index i, :part p}   part p (from 1) of the snapshot of index i
      {:ask :installed, :index i}       the asker installed what this node took; README's convention, nothing is answered

  An answer to `:part`: `kind u8 · parts u32 · index u64 · term u64 · instant u64 · data`, kind 1 for EDN, 2 for a byte array,
  3 when that snapshot is not here any more, but the one of `index` is: the asker may begin with that."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.codec :as codec]
            [quorate.impl.errors :as errors]
            [quorate.impl.pending :as pending]
            [quorate.impl.runner :as runner]
            [quorate.impl.session :as session]
            [quorate.impl.wire :as wire])
  (:import (java.nio ByteBuffer)
           (quorate.impl.pending Immediate)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:const questions-max "Questions of other nodes that wait for the user's `:snapshot-xfer`; more are refused." 64)
(def ^:const parts-max "Parts that a snapshot may have." 1000000)
(def ^:private ^:const answer-head "Bytes of an answer before its data." 29)

(def ^:private ^:const kind-edn 1)
(def ^:private ^:const kind-bytes 2)
(def ^:private ^:const kind-newer 3)

(defn failure
  "The ex-info of a transfer that failed."
  ([message] (failure message nil))
  ([message cause] (errors/error :raft/snapshot message nil cause)))

;; ------------------------------------------------------------------------------------------------------- asking

(deftype Asking [answer]
  Immediate
  pending/Waiter
  (done! [_ payload]
    (deliver answer payload))
  (failed! [_ _ticket code message]
    (deliver answer (errors/from-code code message {:operation :ask}))))

(defn ask!
  "Sends `question`, a map, to the host of `server`, and returns a promise of the answer, bytes, or of an ex-info:
  `:raft/unavailable`, `:raft/command-timeout`, `:raft/state-machine` (refused there, with the reason), `:raft/shutdown`. It
  is kept within `timeout-ms`, whatever the user's callbacks do. Throws ex-info when the node is closed or overloaded."
  [{:keys [handle] :as rt} server question timeout-ms]
  (let [answer (promise)
        body   (wire/ask-body server (codec/encode question))]
    (pending/register! (:pending rt)
                       (fn [] (session/submit! handle wire/ask body timeout-ms))
                       (Asking. answer))
    answer))

(defn- awaited
  "The answer within `timeout-ms` and a little. Throws the ex-info when there is none."
  ^bytes [answer ^long timeout-ms]
  (let [got (deref answer (+ timeout-ms 2000) ::none)]
    (cond
      (= ::none got)            (throw (failure (str "The node did not answer within " timeout-ms " ms.")))
      (instance? Throwable got) (throw got)
      :else                     got)))

(defn- parsed [^bytes answer]
  (when (< (alength answer) answer-head)
    (throw (failure "The answer to a question for a part of a snapshot is too short.")))
  (let [^ByteBuffer in (wire/buffer answer)
        kind    (long (.get in))
        head    {:parts (.getInt in), :index (.getLong in), :term (.getLong in), :instant (.getLong in)}]
    (case kind
      1 (assoc head :data (codec/decode (wire/take-bytes in (.remaining in))))
      2 (assoc head :data (wire/take-bytes in (.remaining in)))
      3 (assoc head :newer? true)
      (throw (failure (str "An answer of kind " kind ", which this version of Quorate does not know."))))))

(defn part!
  "Asks `server` for a part; `{:parts :index :term :instant :data}`, or the same with `:newer? true` and no data. Throws
  ex-info."
  [rt server index part timeout-ms]
  (parsed (awaited (ask! rt server {:ask :part, :index index, :part part} timeout-ms) timeout-ms)))

(defn- checked-part [{:keys [parts] :as answer} expected]
  (when-not (<= 1 (long parts) (long parts-max))
    (throw (failure (str "A snapshot of " parts " parts."))))
  (when (and expected (not= expected parts))
    (throw (failure (str "The snapshot had " expected " parts, and now has " parts "."))))
  answer)

(defn receive!
  "Fetches the snapshot of `index` and `term` from `server`, part after part, and calls `(take! part-map)` for each with fluree's
  keys `:snapshot-index :snapshot-term :snapshot-part :snapshot-parts :snapshot-data :instant`; before the first, `(begin!
  index)`. A server that has a newer one instead sends that. Returns `{:index :term}` of what was received. Throws what goes
  wrong; the transfer then is to begin again with part 1."
  [rt server {:keys [index term]} timeout-ms {:keys [begin! take!]}]
  (let [{:keys [newer?] :as first-answer} (part! rt server index 1 timeout-ms)
        index  (if newer? (:index first-answer) index)
        term   (if newer? (:term first-answer) term)
        answer (if newer? (part! rt server index 1 timeout-ms) first-answer)]
    (when (:newer? answer)
      (throw (failure (str "The snapshot of index " index " went away while it was asked for."))))
    (begin! index)
    (loop [part 1, answer (checked-part answer nil)]
      (let [{:keys [parts data instant]} answer]
        (take! {:snapshot-index index, :snapshot-term term, :snapshot-part part, :snapshot-parts parts, :snapshot-data data
                :instant instant})
        (when (< part (long parts))
          (recur (inc part) (checked-part (part! rt server index (inc part) timeout-ms) parts)))))
    {:index index, :term term}))

;; ---------------------------------------------------------------------------------------------------- answering

(defn- check-size [^long bytes ^long limit]
  (when (> bytes limit)
    (throw (failure (str "The :data of a part that :snapshot-xfer returned has " bytes " bytes; at most " limit
                         " are possible: return more, smaller parts.")))))

(defn- encoded
  "`data` as an entry is encoded; what is too large is told as such of a part."
  ^bytes [data]
  (try
    (codec/encode data)
    (catch clojure.lang.ExceptionInfo e
      (when (= :raft/too-large (:error (ex-data e)))
        (check-size (:bytes (ex-data e)) (:limit (ex-data e))))
      (throw e))))

(defn- built [kind parts index term ^bytes data]
  (check-size (alength data) (- (long wire/answer-bytes-max) (long answer-head)))
  (-> (wire/sink)
      (wire/u8! kind)
      (wire/u32! parts)
      (wire/u64! index)
      (wire/u64! term)
      (wire/u64! (System/currentTimeMillis))
      (wire/raw! data)
      wire/built))

(defn newer-answer
  "The answer that the snapshot of `index` and `term` is here instead of the one that was asked for."
  ^bytes [index term]
  (built kind-newer 1 index term (byte-array 0)))

(defn part-answer
  "What the user's `:snapshot-xfer` returned for a part, as an answer. Throws ex-info when it is nothing of the kind, or too
  large."
  ^bytes [index returned]
  (let [{:keys [parts data]} (when (map? returned) returned)]
    (when-not (and (pos-int? parts) (<= (long parts) (long parts-max)))
      (throw (failure (str ":snapshot-xfer must return {:parts n :data bytes}, and returned "
                           (if (map? returned) (str "a map with :parts " (pr-str parts)) (pr-str (class returned))) "."))))
    (if (bytes? data)
      (built kind-bytes parts index 0 data)
      (built kind-edn parts index 0 (encoded data)))))

(defn- answer! [{:keys [handle closed?]} ticket ok? ^bytes payload]
  (try
    (session/control handle wire/op-answered (wire/answered-body ticket ok? payload))
    (catch Exception e
      (when-not (closed?)
        ;; The asker has given up meanwhile, or is gone: it asks again.
        (log/debug e "The answer to a question came too late.")))))

(defn- refuse! [rt ticket message]
  (answer! rt ticket false (wire/utf-8 message)))

(defn- sentence [^Throwable t]
  (or (ex-message t) (.getName (class t))))

(defn- answered! [rt answer-to ticket from ^bytes question]
  (try
    (answer! rt ticket true (answer-to from (codec/decode question)))
    (catch Throwable t
      (refuse! rt ticket (sentence t)))))

(defn asked!
  "Has the question `ticket` of `from` answered by `(answer-to from question)`, bytes or what it throws, on the transfer thread
  of `rt`. Refused at once when too many wait, or when `answer-to` is nil. Never waits and never throws."
  [{:keys [transfers] :as rt} answer-to ticket from question]
  (cond
    (nil? answer-to)
    (refuse! rt ticket "This node has no snapshots of a :state-machine to give.")

    (not (runner/offer! @transfers (fn [] (answered! rt answer-to ticket from question))))
    (refuse! rt ticket "This node is busy with other transfers of snapshots.")))
