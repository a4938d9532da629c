(ns quorate.impl.readme-snapshots
  "Users' snapshots as fluree/raft's README describes them: `:snapshot-reify ()` gives the state as a value, `:snapshot-write (file
  state)` writes it, `:snapshot-install (state index)` takes one.

  The value is the engine's snapshot too, so a restart and a node that lags need no file of the user's. `:snapshot-xfer (state
  server)` is therefore a notice: `server` has installed that state. The file is the user's to use; the newest few stay."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.machine :as machine]
            [quorate.impl.snapshot-files :as files]
            [quorate.impl.snapshot-tasks :as tasks]
            [quorate.impl.transfer :as transfer])
  (:import (java.util.concurrent CompletableFuture)
           (java.util.concurrent.atomic AtomicBoolean)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const notice-ms "How long a notice of an installation may take." 5000)

(defn- write-file! [{:keys [directory] :as context} index value]
  (let [file (files/state-file directory index)]
    (tasks/call context :snapshot-write file value)
    (when (.isFile file)
      (files/force! file)
      (files/force! directory))
    (files/trim! directory)))

(defn- start! [{:keys [^AtomicBoolean writing server] :as context} index value ^CompletableFuture outcome]
  (when-not (.compareAndSet writing false true)
    (throw (tasks/failure :snapshot-write "An earlier call of :snapshot-write has not returned; no other is made meanwhile.")))
  (machine/apart! server (fn []
                           (let [t (machine/failure-of #(write-file! context index value))]
                             (.set writing false)
                             (if t
                               (when-not (.completeExceptionally outcome t)
                                 (tasks/report! context t {:index index}))
                               (.complete outcome true))))))

(defn- keep-value!
  "Keeps the state for a notice, where there is a server to be noticed of."
  [{:keys [given runtime] :as context} index value]
  (when (and (:snapshot-xfer context)
             (< 1 (count (:members ((:status-of @runtime))))))
    (reset! given {:index index, :value value})))

(defn begin!
  "Takes the state as a value here, has the user's function write it on another thread, and then the marker with it at `path`;
  `finish!` as in [[tasks/begin!]]."
  [{:keys [server] :as context} path finish!]
  (let [index (tasks/index-of context)
        term  (tasks/term-of context)
        value (volatile! nil)]
    (tasks/begin! context
                  (fn [outcome]
                    (vreset! value (tasks/call context :snapshot-reify))
                    (start! context index @value outcome))
                  (fn []
                    (files/write-marker! {:kind :readme, :index index, :term term, :server server, :state @value} path)
                    (keep-value! context index @value))
                  finish!)))

(defn restore!
  "Installs the state of `marker`. Throws what the user's function throws."
  [{:keys [server runtime restored] :as context} {:keys [index term state] :as marker}]
  (let [at-start? (not (realized? restored))]
    (tasks/call context :snapshot-install state index)
    (tasks/restored! context index term)
    (when-not (or at-start? (= server (:server marker)))
      (keep-value! context index state)
      (when-let [t (machine/failure-of #(transfer/ask! @runtime (:server marker) {:ask :installed, :index index} notice-ms))]
        ;; Nobody waits for its answer either: it is a notice.
        (log/debug t "The notice of an installed snapshot was not sent.")))))

(defn answer
  "Tells the user's function that `from` installed the state of `index`, which this node took. Returns the empty answer."
  ^bytes [{:keys [given runtime] :as context} from {:keys [index]}]
  (let [{:keys [value] :as kept} @given]
    (if (and (:snapshot-xfer context) (= index (:index kept)))
      (when-let [t (machine/failure-of #(tasks/call context :snapshot-xfer value (get (:servers @runtime) from from)))]
        (tasks/report! context t {:index index, :server from}))
      (log/debug from "installed the snapshot of index" index "which this node does not hold any more."))
    (byte-array 0)))
