(ns quorate.kv
  "A replicated key-value store: on the disks of a majority before a write is acknowledged, and the same on every node.

  - A **store** is what `open` returns: this server's node with the engine's own state machine. All functions of
    `quorate.raft` that ask about a node or change its cluster take it too.
  - **Keys** are strings, keywords, numbers, any other EDN scalar, byte arrays, and vectors of these. Equal keys are the
    same key: `1` and `1N`, `1.0M` and `1.00M`, `[1 2]` and `'(1 2)`. They sort by type, then by value, vectors by element.
  - **Values** are any EDN value, or a byte array.
  - A **revision** is the index of the entry that made a change: it grows, has gaps, and is the same on every node. Each
    key has the revision that made it and that of its last change.
  - **Consistency** of reads, `:consistency` in the options: `:linearizable` (default; sees every write acknowledged
    before, on any node, for a message to the leader), `:lease` (asks nobody; right as long as clocks do not drift apart
    by more than the lease's margin), `:local` (whatever this node has applied; may be old).

  Each function that asks the cluster comes in two: `put!` returns a CompletableFuture at once (`@`, `deref` with a timeout,
  `.thenApply` work; `@` throws the failure itself), `put!!`, with one more `!`, waits and returns the value or throws. So do
  `get` and `get!!`, and so on.

  Options come last, in a map; all take `:timeout-ms` (default: the node's :default-command-timeout).

  Failures are ex-infos with `:error`, see `quorate.raft`: `:raft/command-timeout` (a write may still take effect),
  `:raft/unavailable` (no quorum: nothing was done), `:raft/shutdown`, `:raft/overloaded`. What is refused at the call is
  thrown: `:raft/unreadable` (a key or value that EDN cannot carry), `:raft/too-large`, `:raft/invalid`.

  The `raw-` functions are for servers that store other people's bytes: keys and values are byte arrays as they are. Raw
  and typed keys never meet: the first byte of each stored key says which it is."
  (:refer-clojure :exclude [get])
  (:require [quorate.impl.errors :as errors]
            [quorate.impl.kv-op :as kv-op]
            [quorate.impl.kv-watches :as kv-watches]
            [quorate.impl.node :as node]
            [quorate.impl.wire :as wire]
            [quorate.raft :as raft])
  (:import (java.io Writer)
           (java.util.function BiConsumer)
           (quorate.impl Answer)))

(set! *warn-on-reflection* true)

(defrecord Store [node own?])

(def absent
  "What to give `cas!` as the expected value of a key that must not be there."
  ::absent)

;; ------------------------------------------------------------------------------------------------- open, close

(defn attach
  "A store on `node`, which `quorate.raft/start` started with `:machine :kv`. `close` then leaves the node alone. Throws ex-info
  `:raft/invalid` for a node with another state machine."
  [node]
  (let [rt (:quorate.raft/runtime node)]
    (when-not (= :kv (get-in rt [:config :machine]))
      (throw (errors/error :raft/invalid "A store needs a node that was started with :machine :kv.")))
    (assoc (->Store node false) :quorate.raft/runtime rt)))

(defn open
  "Starts this server's node and returns the store. `config` is that of `quorate.raft/start` without a state machine; throws
  as that does."
  [config]
  (assoc (attach (raft/start (assoc config :machine :kv)))
         :own? true))

(defn close
  "Closes the store, and its node unless it was attached. Returns what `quorate.raft/close` does, or `:closed`."
  [store]
  (if (:own? store)
    (raft/close (:node store))
    :closed))

(defn- runtime [store]
  (or (:quorate.raft/runtime store)
      (throw (errors/error :raft/invalid (str "This is not a store of quorate.kv: " (pr-str (class store)) ".")))))

;; ------------------------------------------------------------------------------------------------------ writes

(defn- transact! ^Answer [store coder operation txn opts]
  (let [rt (runtime store)]
    (node/request! rt wire/command operation (kv-op/command coder txn) (node/timeout-of rt opts)
                   (fn [payload] (kv-op/outcome coder payload)))))

(defn- guards-of
  "The guards that the options of a single write ask for."
  [k {:keys [if-revision if-absent? if-exists?]}]
  (cond-> []
    if-revision (conj [:mod-revision k if-revision])
    if-absent?  (conj [:absent k])
    if-exists?  (conj [:exists k])))

(defn- single [{:keys [succeeded? revision results] :as outcome}]
  (if succeeded?
    {:succeeded? true, :revision revision, :existed? (:existed? (first results))}
    {:succeeded? false, :revision revision, :current (:current outcome)}))

(defn- then
  "A future of `(f result)`, failing as `answer` does."
  ^Answer [store ^Answer answer f]
  (let [out (node/answer (runtime store))]
    (.whenComplete answer
                   (reify BiConsumer
                     (accept [_ result failure]
                       (if failure
                         (.completeExceptionally out failure)
                         (try
                           (.complete out (f result))
                           (catch Throwable t
                             (.completeExceptionally out t)))))))
    out))

(defn- write-one! [store coder operation k write opts]
  (then store
        (transact! store coder operation {:if (guards-of k opts), :then [write]} opts)
        single))

(defn put!
  "Sets `key` to `value`. A CompletableFuture of `{:succeeded? true :revision n :existed? bool}`; `:existed?` tells whether
  the key was there before.

  `opts`: `:if-revision n` (only if its last change was at n), `:if-absent? true`, `:if-exists? true`; when that does not
  hold nothing is written: `{:succeeded? false :revision n :current {:value :create-revision :mod-revision}}`, `:current`
  nil when the key is not there."
  ([store key value] (put! store key value nil))
  ([store key value opts]
   (write-one! store kv-op/typed :put key [:put key value] opts)))

(defn delete!
  "Removes `key`. A CompletableFuture of `{:succeeded? true :revision n :existed? bool}`. `opts` as for [[put!]]."
  ([store key] (delete! store key nil))
  ([store key opts]
   (write-one! store kv-op/typed :delete key [:delete key] opts)))

(defn txn!
  "One atomic transaction. `txn` is a map of vectors:

      :if    guards: [:exists k] [:absent k] [:value k v] [:mod-revision k n] [:create-revision k n]
      :then  writes, when all guards hold: [:put k v] [:delete k]
      :else  writes, when one does not

  A CompletableFuture of `{:succeeded? bool :revision n :results [{:existed? bool} ...]}`, one result a write executed; when
  a guard failed with `:failed-guard`, its position, and `:current`, what it found.

  `:value` compares the bytes of the encoding: equal values of the same types that were built in the same way. For maps and
  sets, whose order may differ, use the revision, or [[cas!]], which compares values."
  ([store txn] (txn! store txn nil))
  ([store txn opts]
   (transact! store kv-op/typed :txn txn opts)))

(defn- cas-guards [key expected]
  (if (= absent expected)
    [[:absent key]]
    [[:value key expected]]))

(defn- same-value? [expected current]
  (and current
       (not= absent expected)
       (or (= expected (:value current))
           (and (bytes? expected) (bytes? (:value current))
                (java.util.Arrays/equals ^bytes expected ^bytes (:value current))))))

(defn- cas-result [{:keys [succeeded? revision current]}]
  (if succeeded?
    {:succeeded? true, :revision revision}
    {:succeeded? false, :revision revision, :current current}))

(defn- cas-step!
  "One attempt with `guards`. When it fails although what is there equals `expected`, being only encoded otherwise, the next
  attempt asks for exactly that revision."
  [store key expected new ^Answer out deadline-ns guards]
  (let [left-ms (quot (- (long deadline-ns) (System/nanoTime)) 1000000)
        answer  (transact! store kv-op/typed :cas {:if guards, :then [[:put key new]]} {:timeout-ms (max 1 left-ms)})]
    (.whenComplete answer
                   (reify BiConsumer
                     (accept [_ result failure]
                       (try
                         (cond
                           failure
                           (.completeExceptionally out failure)

                           (and (not (:succeeded? result)) (same-value? expected (:current result)))
                           (cas-step! store key expected new out deadline-ns
                                      [[:mod-revision key (:mod-revision (:current result))]])

                           :else
                           (.complete out (cas-result result)))
                         (catch Throwable t
                           (.completeExceptionally out t))))))))

(defn cas!
  "Sets `key` to `new` if its value equals `expected` (`=`; byte arrays by content), or, with [[absent]], if it is not there.
  A CompletableFuture of `{:succeeded? true :revision n}`, or `{:succeeded? false :revision n :current {:value
  :create-revision :mod-revision}}`, `:current` nil when the key is not there. To compare revisions: [[put!]] with
  `:if-revision`."
  ([store key expected new] (cas! store key expected new nil))
  ([store key expected new opts]
   (let [rt  (runtime store)
         out (node/answer rt)
         deadline-ns (+ (System/nanoTime) (* 1000000 (long (node/timeout-of rt opts))))]
     (cas-step! store key expected new out deadline-ns (cas-guards key expected))
     out)))

;; ------------------------------------------------------------------------------------------------------- reads

(defn- read! ^Answer [store operation request opts decode]
  (let [rt (runtime store)]
    (node/request! rt wire/read-kind operation request (node/timeout-of rt opts) decode)))

(defn- get-with [store coder k opts]
  (read! store :get (kv-op/get-request coder (node/consistency-of opts) k) opts
         (fn [payload] (kv-op/get-answer coder payload))))

(defn get
  "A CompletableFuture of what is at `key`: `{:value v :revision n :create-revision n :mod-revision n}`, nil when the key is
  not there. `:revision` is that of the store when it was read. `opts`: `:consistency :timeout-ms`."
  ([store key] (get store key nil))
  ([store key opts] (get-with store kv-op/typed key opts)))

(def ^:private ^:const scan-limit 1000)

(defn- checked-limit [{:keys [limit] :or {limit scan-limit}}]
  (if (and (pos-int? limit) (<= (long limit) 0xffffffff))
    limit
    (throw (errors/error :raft/invalid (str ":limit must be a positive whole number, not " (pr-str limit) ".")))))

(defn- scan-with [store coder prefix opts]
  (let [request (kv-op/scan-request coder (node/consistency-of opts) prefix (assoc opts :limit (checked-limit opts)))]
    (read! store :scan request opts
           (fn [payload] (kv-op/scan-answer coder (:keys-only? opts) payload)))))

(defn scan
  "A CompletableFuture of the keys that begin with `prefix`, in order: strings that begin with a string, vectors whose first
  elements are those of a vector, all keys for nil.

      {:revision n, :entries [{:key k :value v :create-revision n :mod-revision n} ...], :more? bool, :next k}

  `opts`: `:limit` (1000; an answer may also be shorter, then with `:more?`), `:after k` (only keys after k: give it the
  `:next` of the answer before), `:keys-only? true` (without `:value`), `:consistency`, `:timeout-ms`. Each answer is one
  consistent state; two answers may be of two."
  ([store prefix] (scan store prefix nil))
  ([store prefix opts] (scan-with store kv-op/typed prefix opts)))

(defn count-keys
  "A CompletableFuture of the number of keys that begin with `prefix`, as for [[scan]]. `opts`: `:consistency :timeout-ms`."
  ([store prefix] (count-keys store prefix nil))
  ([store prefix opts]
   (read! store :count (kv-op/count-request kv-op/typed (node/consistency-of opts) prefix) opts kv-op/count-answer)))

;; ------------------------------------------------------------------------------------------- the same, and wait

(defn put!!
  "[[put!]], and waits: returns its map, or throws."
  ([store key value] @(put! store key value))
  ([store key value opts] @(put! store key value opts)))

(defn delete!!
  "[[delete!]], and waits: returns its map, or throws."
  ([store key] @(delete! store key))
  ([store key opts] @(delete! store key opts)))

(defn txn!!
  "[[txn!]], and waits: returns its map, or throws."
  ([store txn] @(txn! store txn))
  ([store txn opts] @(txn! store txn opts)))

(defn cas!!
  "[[cas!]], and waits: returns its map, or throws."
  ([store key expected new] @(cas! store key expected new))
  ([store key expected new opts] @(cas! store key expected new opts)))

(defn get!!
  "[[get]], and waits: returns its map or nil, or throws."
  ([store key] @(get store key))
  ([store key opts] @(get store key opts)))

(defn scan!!
  "[[scan]], and waits: returns its map, or throws."
  ([store prefix] @(scan store prefix))
  ([store prefix opts] @(scan store prefix opts)))

(defn count-keys!!
  "[[count-keys]], and waits: returns the number, or throws."
  ([store prefix] @(count-keys store prefix))
  ([store prefix opts] @(count-keys store prefix opts)))

;; ----------------------------------------------------------------------------------------------------- watches

(defn watch!
  "Has `f` called with each change of `key`, in order, on the watches' thread of the node. Returns the watch's number, for
  [[unwatch!]]. `f` gets maps:

      {:type :put, :key k, :value v, :revision n, :create-revision n}
      {:type :delete, :key k, :revision n}
      {:type :compacted, :oldest n}   changes before n are gone (too long ago, or `f` was too slow): read the keys again
      {:type :progress, :revision n}  every change up to n has been delivered

  `opts`: `:prefix? true` (`key` is a prefix, as for [[scan]]), `:from-revision n` (changes from n on, those of the past
  included; 0, the default: from now on). What `f` throws is logged. Throws ex-info `:raft/invalid`, `:raft/overloaded` (too
  many watches), `:raft/shutdown`."
  [store key {:keys [prefix? from-revision] :or {from-revision 0}} f]
  (when-not (nat-int? from-revision)
    (throw (errors/error :raft/invalid (str ":from-revision must be a whole number from 0 on, not " (pr-str from-revision) "."))))
  (when-not (ifn? f)
    (throw (errors/error :raft/invalid (str "A watch must be a function, not " (pr-str f) "."))))
  (kv-watches/watch! (runtime store) kv-op/typed key prefix? from-revision f))

(defn unwatch!
  "Ends the watch that [[watch!]] returned. Returns true; false when there is none of that number. A call that is under way
  still ends."
  [store watch]
  (kv-watches/unwatch! (runtime store) watch))

;; --------------------------------------------------------------------------------------------------------- raw

(defn raw-put!
  "[[put!]] for a key and a value that are byte arrays, as they are."
  ([store key-bytes value-bytes] (raw-put! store key-bytes value-bytes nil))
  ([store key-bytes value-bytes opts]
   (write-one! store kv-op/raw :put key-bytes [:put key-bytes value-bytes] opts)))

(defn raw-delete!
  "[[delete!]] for a key that is a byte array."
  ([store key-bytes] (raw-delete! store key-bytes nil))
  ([store key-bytes opts]
   (write-one! store kv-op/raw :delete key-bytes [:delete key-bytes] opts)))

(defn raw-get
  "[[get]] for a key that is a byte array; `:value` is one, too."
  ([store key-bytes] (raw-get store key-bytes nil))
  ([store key-bytes opts] (get-with store kv-op/raw key-bytes opts)))

(defn raw-txn!
  "[[txn!]] where all keys and values are byte arrays. `:value` guards compare the bytes."
  ([store txn] (raw-txn! store txn nil))
  ([store txn opts] (transact! store kv-op/raw :txn txn opts)))

(defn raw-scan
  "[[scan]] for a prefix that is a byte array, or nil; keys and values are byte arrays."
  ([store prefix-bytes] (raw-scan store prefix-bytes nil))
  ([store prefix-bytes opts] (scan-with store kv-op/raw prefix-bytes opts)))

;; ----------------------------------------------------------------------------------------------------- printing

(defmethod print-method Store [store ^Writer out]
  (.write out (str "#<quorate.kv/Store " (raft/summary store) ">")))

(comment
  (def store (open {:this-server "server1", :servers ["server1"], :log-directory "/tmp/quorate-kv"}))
  @(put! store "user/1" {:name "Ada"})
  (get!! store "user/1")
  (cas!! store "user/1" {:name "Ada"} {:name "Grace"})
  (txn!! store {:if [[:exists "user/1"]], :then [[:put [:count :users] 1] [:delete "tmp"]]})
  (scan!! store "user/")
  (def watch (watch! store "user/" {:prefix? true} println))
  (unwatch! store watch)
  (close store))
