(ns quorate.impl.errors
  "One place where the engine's error codes become keywords, and where every ex-info of Quorate is made.

  An ex-info of Quorate always has `:error`, a keyword, in its data, and one sentence as its message. The codes are those
  of `native/engine/src/error.rs`.")

(set! *warn-on-reflection* true)

(def ^:const timeout-code "The engine's code of :raft/command-timeout." 5)

(def keywords
  "The engine's codes, as numbers, and the keyword of each."
  {1  :raft/shutdown
   2  :raft/invalid
   3  :raft/overloaded
   4  :raft/too-large
   5  :raft/command-timeout
   6  :raft/not-leader
   7  :raft/unavailable
   8  :raft/state-machine
   9  :raft/io
   10 :raft/corrupt
   11 :raft/refused
   12 :raft/locked
   13 :raft/address-in-use
   14 :raft/membership
   15 :raft/compacted
   16 :raft/internal})

(def ^:private sentences
  "Sentences that consumers of fluree/raft know, for the errors that it has too."
  {:raft/command-timeout "Command timed out."
   :raft/shutdown        "Raft server shut down."})

(defn error
  "An ex-info with `:error` keyword, a `message`, and more `data`."
  ([keyword message] (error keyword message nil))
  ([keyword message data] (ex-info message (merge data {:error keyword})))
  ([keyword message data cause] (ex-info message (merge data {:error keyword}) cause)))

(defn from-code
  "The ex-info for an engine `code` (a number) with the engine's `message`. A code that this version does not know
  becomes `:raft/internal`. Where fluree/raft has a sentence of its own for the same error that one is the message, and
  the engine's is under `:reason`."
  ([code message] (from-code code message nil))
  ([code message data]
   (let [kind     (get keywords (long code) :raft/internal)
         sentence (get sentences kind)
         reason   (not-empty message)]
     (error kind
            (or sentence reason (str "The engine reported error " code "."))
            (cond-> data
              (and sentence reason (not= sentence reason)) (assoc :reason reason))))))
