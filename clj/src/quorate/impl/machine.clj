(ns quorate.impl.machine
  "The state machine of a node, in two kinds.

  A *reducer* `(fn [state entry ctx] [state' result])` is pure: the node keeps the value, so a snapshot is that value
  written out while the next entries are applied. A *state machine* in fluree's way, `(fn [entry raft-state] result)`,
  keeps its state where it likes; its snapshots are the user's own functions, see `quorate.impl.user-snapshots`.

  Neither can harm the node: what throws, and a reducer that returns something else than a pair, becomes the result of
  its entry, the same on every replica, and a reducer's state stays as it was."
  (:require [quorate.impl.codec :as codec]
            [quorate.impl.errors :as errors]
            [quorate.impl.records]
            [quorate.impl.runner :as runner])
  (:import (clojure.lang IPersistentVector)
           (quorate.impl LazyMap)
           (quorate.impl.records Entry)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(defprotocol Machine
  "Called from the apply thread only, except [[current]] and [[pending-index]]."
  (step! [_ entry] "Applies `entry`; returns its result, or [[result-unknown]]. Never throws.")
  (begin-snapshot! [_ path finish!]
    "Begins to write the state as of now to `path`, on another thread, and sees to it that `finish!` is called once, with nil
    or with what went wrong. Never throws.")
  (replace! [_ path] "Replaces the state by the file at `path`. Throws what goes wrong; it is called again then.")
  (current [_] "The state as of the last entry applied; throws ex-info when the node does not hold it.")
  (pending-index [_] "The index of the snapshot that the user's functions are at; nil when they are at none."))

(def result-unknown
  "The result of an entry that took effect within a snapshot that this node installed."
  (Object.))

(defn id-text
  "The id of a submission as a string, `node.incarnation.sequence` (the node in hexadecimal), as the engine's log has it."
  ^String [node incarnation sequence]
  (str (Long/toHexString (long node)) "." incarnation "." sequence))

(defn- own-seed
  "The leader draws one seed for a batch of entries; each entry gets its own from it (the finaliser of splitmix64)."
  ^long [^long seed ^long index]
  (let [z (+ seed (unchecked-multiply index -7046029254386353131))
        z (unchecked-multiply (bit-xor z (unsigned-bit-shift-right z 30)) -4658895280553007687)
        z (unchecked-multiply (bit-xor z (unsigned-bit-shift-right z 27)) -7723592293110705685)]
    (bit-xor z (unsigned-bit-shift-right z 31))))

(defn- context-of [^Entry e]
  {:index   (.-index e)
   :term    (.-term e)
   :time-ms (.-time_ms e)
   :seed    (own-seed (.-seed e) (.-index e))
   :id      (id-text (.-node e) (.-incarnation e) (.-sequence e))})

(defn- context
  "Of an entry, for a reducer: made when that looks into it."
  [e]
  (LazyMap. context-of e))

(defn said
  "The message of `t`, or its class when it has none."
  ^String [^Throwable t]
  (or (ex-message t) (.getName (class t))))

;; ----------------------------------------------------------------------------------------------------- reducer

(defn- machine-failure [index reason cause]
  (errors/error :raft/state-machine (str "State machine error: " reason) {:index index} cause))

(defn- rubbish [x]
  (str "the reducer must return a vector [state result], and returned "
       (cond (nil? x)    "nil"
             (vector? x) (str "a vector of " (count x))
             :else       (.getName (class x)))
       "."))

(defn- reduced-by
  "`[state' result]`; on any failure the state as it was and the failure."
  [reducer state ^Entry e]
  (try
    (let [pair (reducer state (codec/decode-span (.-body e)) (context e))]
      (if (and (vector? pair) (= 2 (.length ^IPersistentVector pair)))
        pair
        [state (machine-failure (.-index e) (rubbish pair) nil)]))
    (catch Throwable t
      [state (machine-failure (.-index e) (said t) t)])))

(defn apart!
  "Runs `f`, which never throws, on a new daemon thread for a snapshot of the node `node-name`."
  [node-name f]
  (.start (runner/daemon (str "quorate-snapshot-" node-name) f)))

(defn failure-of
  "What calling `f` throws; nil when it returns."
  [f]
  (try (f) nil
       (catch Throwable t t)))

(deftype ReducerMachine [node-name reducer ^:volatile-mutable state]
  Machine
  (step! [_ entry]
    (let [^IPersistentVector pair (reduced-by reducer state entry)]
      (set! state (.nth pair 0))
      (.nth pair 1)))
  (begin-snapshot! [_ path finish!]
    (let [value state]
      (apart! node-name (fn [] (finish! (failure-of #(codec/write-file! value path)))))))
  (replace! [_ path]
    (set! state (codec/read-file path)))
  (current [_] state)
  (pending-index [_] nil))

(defn reducer-machine
  "A machine of the node `node-name` that keeps `initial-state` and steps it by the pure `reducer`, `(fn [state entry ctx]
  [state' result])`."
  [node-name reducer initial-state]
  (ReducerMachine. node-name reducer initial-state))

;; ------------------------------------------------------------------------------------------ fluree's state machine

(defn- no-snapshots []
  (errors/error :raft/no-snapshots
                "This :state-machine has no snapshot functions, so this node can neither write nor install a snapshot of it; a :reducer has both for free."))

(deftype FunctionMachine [f raft-state-at]
  Machine
  (step! [_ entry]
    (try
      (f (codec/decode-span (.-body ^Entry entry)) (raft-state-at entry))
      (catch Throwable t
        {:error (str "State machine error: " (said t))})))
  (begin-snapshot! [_ _ finish!] (finish! (no-snapshots)))
  (replace! [_ _] (throw (no-snapshots)))
  (current [_]
    (throw (errors/error :raft/invalid "A :state-machine keeps its state itself; only a :reducer's can be asked for.")))
  (pending-index [_] nil))

(defn function-machine
  "A machine in fluree's way: `f` is `(fn [entry raft-state] result)`; `raft-state-at` makes the raft state of an entry."
  [f raft-state-at]
  (FunctionMachine. f raft-state-at))
