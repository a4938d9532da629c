(ns quorate.impl.source-snapshots
  "Users' snapshots as fluree/raft's source calls them: `:snapshot-write (index done)`, `:snapshot-reify (index)`,
  `:snapshot-xfer (index part)` and `:snapshot-install (part-map)`. The user's functions keep the data; the engine keeps and
  sends a marker.

  A node that gets the marker of an index that is not whole on its own disk fetches the parts, from the leader or else from
  others. When nobody has that index any more, a newer one will do: the entries up to it are then passed over."
  (:require [quorate.impl.config :as config]
            [quorate.impl.machine :as machine]
            [quorate.impl.snapshot-files :as files]
            [quorate.impl.snapshot-tasks :as tasks]
            [quorate.impl.transfer :as transfer])
  (:import (java.util.concurrent CompletableFuture)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private ^:const part-wait-ms-max "How long one part is waited for, at most." 30000)

;; -------------------------------------------------------------------------------------------------------- write

(defn- whole? [{:keys [directory]} index]
  (some #(= index (:index %)) (files/complete directory)))

(defn begin!
  "Has the user's function write the snapshot of the state as of now, and then the marker at `path`; `finish!` as in
  [[tasks/begin!]]. What is whole already is not written again."
  [{:keys [directory server] :as context} path finish!]
  (let [index (tasks/index-of context)
        term  (tasks/term-of context)]
    (tasks/begin! context
                  (fn [^CompletableFuture outcome]
                    (let [done (fn [& _] (.complete outcome true) true)]
                      (if (whole? context index)
                        (done)
                        (tasks/call context :snapshot-write index done))))
                  (fn []
                    (files/note-complete! directory index term)
                    (files/write-marker! {:kind :source, :index index, :term term, :server server} path))
                  finish!)))

;; ------------------------------------------------------------------------------------------------- from own disk

(defn- reify! [context index]
  (tasks/call context :snapshot-reify index))

(defn- own-candidates
  "Snapshots on this disk that serve for `marker`, best first: that index, or a newer one."
  [{:keys [directory server]} {:keys [index term] :as marker}]
  (let [whole (filter #(>= (long (:index %)) (long index)) (files/complete directory))]
    (if (and (= server (:server marker))
             (not-any? #(= index (:index %)) whole))
      ;; A marker of one's own was written after the user's part.
      (cons {:index index, :term term} whole)
      whole)))

(defn- restore-own!
  "The candidate that the user's function could read; nil when none."
  [context candidates]
  (some (fn [{:keys [index] :as candidate}]
          (if-let [t (machine/failure-of #(reify! context index))]
            (tasks/report! context t {:index index})
            candidate))
        candidates))

;; ---------------------------------------------------------------------------------------------------- from others

(defn- servers-to-ask
  "Who may have the snapshot of `marker`, likeliest first, as the engine has the names."
  [{:keys [server runtime]} {:keys [leader members]} marker]
  (->> (concat [leader (:server marker)] (map :name members) (config/names (:config @runtime)))
       (remove nil?)
       (map config/server-text)
       distinct
       (remove #{server})))

(defn- receiver
  "What becomes of the parts that `from` sends for `marker`. Whatever here would serve instead could not be read: were it still
  held for whole, a node that is stopped half-way would try that first at its next start, and not what it was sent."
  [{:keys [directory runtime] :as context} {:keys [term role]} marker from]
  {:begin! (fn [index]
             (let [unread (filter #(>= (long %) (long (:index marker))) (map :index (files/complete directory)))]
               (run! #(files/forget-complete! directory %) (distinct (cons index unread)))))
   :take!  (fn [part]
             (tasks/call context :snapshot-install
                         (assoc part
                                :leader-id (get (:servers @runtime) from from)
                                ;; A node that starts may not know the present term yet; it is the snapshot's at least.
                                :term      (max (long (or term 0)) (long (:snapshot-term part)))
                                :pending?  (= :learner role))))})

(defn- fetched-from!
  "The snapshot that came from `from`; nil when that failed there or on the way, which is reported. Throws what the user's
  function here throws."
  [{:keys [runtime timeout-ms] :as context} status marker from]
  (try
    (transfer/receive! @runtime from marker (min (long timeout-ms) (long part-wait-ms-max))
                       (receiver context status marker from))
    (catch clojure.lang.ExceptionInfo e
      (when (:where (ex-data e))
        (throw e))
      (let [said (str "The snapshot of index " (:index marker) " did not come from " from ": " (machine/said e)
                      (some->> (:reason (ex-data e)) (str " ")))]
        (tasks/report! context (tasks/failure :snapshot-xfer said) {:index (:index marker), :server from})))))

(defn- fetch!
  "Fetches the snapshot of `marker`, or a newer one, from another node and has the user's function read it. Throws when
  nobody gives it, or a user's function throws."
  [{:keys [directory runtime] :as context} marker]
  (let [status  ((:status-of @runtime))
        servers (servers-to-ask context status marker)
        {:keys [index term] :as found} (some #(when-not (tasks/closed? context) (fetched-from! context status marker %)) servers)]
    (when-not found
      (throw (tasks/failure :snapshot-xfer
                            (str "The snapshot of index " (:index marker) " could not be read here, and "
                                 (if (seq servers) "no other server gave it" "there is no other server to ask")
                                 "; it is tried again."))))
    (reify! context index)
    (files/note-complete! directory index term)
    found))

;; ----------------------------------------------------------------------------------------------------- together

(defn restore!
  "Brings the state to the snapshot of `marker`. Throws, after the user's failures were reported, what keeps it from that; then
  it is called again."
  [{:keys [restored directory] :as context} marker]
  (let [own (restore-own! context (own-candidates context marker))]
    (if own
      (files/note-complete! directory (:index own) (:term own))
      ;; Whoever starts the node waits for its own disk, not for others.
      (deliver restored true))
    (let [{:keys [index term]} (or own (fetch! context marker))]
      (tasks/restored! context index term))))

;; ------------------------------------------------------------------------------------------------------- giving

(defn- own-part [context index part from]
  (try
    (transfer/part-answer index (tasks/call context :snapshot-xfer index part))
    (catch clojure.lang.ExceptionInfo e
      (tasks/report! context
                     (if (:where (ex-data e)) e (tasks/failure :snapshot-xfer (machine/said e)))
                     {:index index, :part part, :server from})
      (throw e))))

(defn answer
  "The answer, bytes, to `from` who asks for a `part` of the snapshot of `index`. Throws what the user's function throws, or why
  there is none."
  [{:keys [directory pending] :as context} from {:keys [index part]}]
  (let [whole (files/complete directory)
        newer (when (= 1 part)
                (last (filter #(> (long (:index %)) (long index)) whole)))
        other (fn [] (transfer/newer-answer (:index newer) (:term newer)))]
    (when (nil? (:snapshot-xfer context))
      (throw (tasks/failure :snapshot-xfer "This node has no :snapshot-xfer.")))
    (cond
      (some #(= index (:index %)) whole)
      (try (own-part context index part from)
           (catch clojure.lang.ExceptionInfo e
             (if newer (other) (throw e))))

      newer (other)
      :else (throw (tasks/failure :snapshot-xfer
                                  (str "This node has no whole snapshot of index " index
                                       (when (= index @pending) " yet") "."))))))
