(ns quorate.fluree.bus
  "A network between nodes of one JVM, as a user of fluree/raft would write one: what `:send-rpc-fn` is given comes out of
  `invoke-rpc` on the other side, unless a fault that is drawn from a seed comes between."
  (:require [quorate.raft :as raft])
  (:import (java.nio ByteBuffer)
           (java.util Random)
           (java.util.concurrent Executors ScheduledExecutorService ThreadFactory TimeUnit)))

(set! *warn-on-reflection* true)

(def no-faults
  "Odds, from 0 to 1, that a message is lost, comes twice, makes the sender's function throw; its greatest delay, which
  also lets messages overtake each other."
  {:lost 0.0, :doubled 0.0, :throws 0.0, :delay-ms 0})

(defn- daemon-threads []
  (reify ThreadFactory
    (newThread [_ task]
      (doto (Thread. task "test-bus") (.setDaemon true)))))

(defn bus
  "A network that draws `faults` from `seed`. A map: `:nodes` (an atom: node by server), `:cut` (an atom: servers that hear and
  say nothing), `:faults` (an atom), `:counts` (an atom: what happened how often)."
  [seed faults]
  {:nodes  (atom {})
   :cut    (atom #{})
   :faults (atom (merge no-faults faults))
   :counts (atom {})
   :random (Random. (long seed))
   :timer  (Executors/newScheduledThreadPool 2 (daemon-threads))})

(defn stop! [{:keys [^ScheduledExecutorService timer]}]
  (.shutdownNow timer))

(defn- chance? [{:keys [^Random random counts faults]} fault]
  (let [hit? (< (.nextDouble random) (double (fault @faults)))]
    (when hit? (swap! counts update fault (fnil inc 0)))
    hit?))

(defn- in-some-form
  "The bytes as a codec of the user's might hand them over."
  [{:keys [^Random random]} ^bytes data]
  (case (.nextInt random 10)
    0 (ByteBuffer/wrap data)
    1 (if (< (alength data) 2000) (vec data) data)
    2 (if (< (alength data) 2000) (map #(bit-and (int %) 0xff) data) data)
    data))

(defn- deliver! [{:keys [nodes cut counts] :as bus} from to op data answer]
  (when-let [node (get @nodes to)]
    (when-not (or (@cut from) (@cut to))
      (swap! counts update :delivered (fnil inc 0))
      (raft/invoke-rpc node op (in-some-form bus data) answer))))

(defn- later! [{:keys [^ScheduledExecutorService timer ^Random random faults]} f]
  (let [most (long (:delay-ms @faults))]
    (if (zero? most)
      (.execute timer f)
      (.schedule timer ^Runnable f (long (* 1000 most (.nextDouble random))) TimeUnit/MICROSECONDS))))

(defn- answered
  "What becomes of an answer: it comes, comes twice, is nil, or never comes."
  [{:keys [^Random random]} cb]
  (fn [answer]
    (case (.nextInt random 4)
      0 (cb answer)
      1 (do (cb answer) (cb answer))
      2 (cb nil)
      nil)))

(defn send!
  "Carries `data` of operation `op` from one server to another."
  [bus from to op data cb]
  (when (chance? bus :throws)
    (throw (Exception. "The network is down.")))
  (when-not (chance? bus :lost)
    (let [go (fn [] (deliver! bus from to op data (answered bus cb)))]
      (later! bus go)
      (when (chance? bus :doubled)
        (later! bus go)))))

(defn source-style
  "A `:send-rpc-fn` as fluree/raft's source calls it."
  [bus]
  (fn [raft-state server op data cb]
    (send! bus (:this-server raft-state) server op data cb)))

(defn readme-style
  "A `:send-rpc-fn` of the server `from`, as fluree/raft's README has it."
  [bus from]
  (fn [server [op data] cb]
    (send! bus from server op data cb)))
