(ns quorate.impl.config
  "What a user writes in the map given to `start`: checked key by key, completed with defaults, and turned into the
  engine's own configuration."
  (:require [clojure.java.io :as io]
            [clojure.string :as str]
            [clojure.tools.logging :as log]
            [quorate.impl.errors :as errors])
  (:import (java.io File)))

(set! *warn-on-reflection* true)

(defn refuse!
  "Throws ex-info `:raft/config` for the key `k`."
  [k message]
  (throw (errors/error :raft/config message {:key k})))

;; ---------------------------------------------------------------------------------------------------- the keys

(defn- server-name? [x]
  (or (and (string? x) (not= "" x)) (keyword? x)))

(defn- servers? [x]
  (if (map? x)
    (every? server-name? (keys x))
    (and (sequential? x) (every? server-name? x))))

(defn- text? [x] (and (string? x) (not (str/blank? x))))
(defn- path? [x] (or (text? x) (instance? File x)))
(def ^:private ms ["a positive whole number of milliseconds" pos-int?])
(def ^:private function ["a function" ifn?])
(def ^:private flag ["true or false" boolean?])
(def ^:private amount ["a positive whole number" pos-int?])

(def ^:private known
  "Each key that means something: what its value must be, in words and as a predicate."
  {:this-server             ["the name of this server, a string or a keyword" server-name?]
   :servers                 ["a vector of server names, or a map from names to addresses" servers?]
   :addresses               ["a map from server names to addresses, \"host:port\"" #(and (map? %) (every? server-name? (keys %)))]
   :listen                  ["an address, \"host:port\"" text?]
   :log-directory           ["the path of a directory" path?]
   :state-machine           ["a function (fn [entry raft-state] result)" ifn?]
   :reducer                 ["a function (fn [state entry ctx] [state' result])" ifn?]
   :initial-state           ["any value" any?]
   :machine                 [":kv" #{:kv}]
   :timeout-ms              ms
   :heartbeat-ms            ms
   :default-command-timeout ms
   :retry-ms                ms
   :snapshot-threshold      amount
   :log-keep-entries        amount
   :leader-change-fn        function
   :close-fn                function
   :forward?                flag
   :insecure                flag
   :join?                   flag
   :strict-config           flag
   :log-level               ["one of :error :warn :info :debug :trace" #{:error :warn :info :debug :trace}]
   :engine                  [":node or :echo" #{:node :echo}]})

(def ^:private fluree-only
  "Keys of fluree/raft that this version accepts and does not need, with what takes their place."
  {:send-rpc-fn           "the native transport carries all messages"
   :snapshot-write        "this version takes snapshots of a :reducer only, and that needs no functions"
   :snapshot-reify        "this version takes snapshots of a :reducer only, and that needs no functions"
   :snapshot-install      "this version takes snapshots of a :reducer only, and that needs no functions"
   :snapshot-xfer         "this version takes snapshots of a :reducer only, and that needs no functions"
   :snapshot-list-indexes "this version takes snapshots of a :reducer only, and that needs no functions"
   :log-history           "see :log-keep-entries"
   :entries-max           "the engine batches by itself"
   :entry-cache-size      "the engine's cache has a bound of its own"
   :catch-up-rounds       "the engine's learners catch up before they vote"
   :event-chan            "there is no event channel"
   :command-chan          "there is no command channel"})

(def defaults
  "What is taken for keys that are not given. Other defaults are the engine's: :snapshot-threshold 100000,
  :log-keep-entries 20000, :retry-ms 250."
  {:log-directory           "raftlog/"
   :timeout-ms              500
   :heartbeat-ms            100
   :default-command-timeout 4000
   :forward?                true
   :engine                  :node})

;; ------------------------------------------------------------------------------------------------ misspelt keys

(defn- next-row
  "The row after `row`, which compares all of `b` with what comes before the letter `ca`, the `i`th."
  [row ^long i ca b]
  (reduce (fn [cells [^long j cb]]
            (let [changed (long (nth row j))
                  dropped (long (nth row (inc j)))
                  added   (long (peek cells))]
              (conj cells (min (inc dropped) (inc added) (if (= ca cb) changed (inc changed))))))
          [(inc i)]
          (map-indexed vector b)))

(defn- edit-distance
  "How many letters to add, drop or change to make `b` of `a` (Levenshtein)."
  [a b]
  (peek (reduce (fn [row [i ca]] (next-row row i ca b))
                (vec (range (inc (count b))))
                (map-indexed vector a))))

(defn- nearest
  "The known key whose name is nearest to that of `k`, or that goes on where `k` ends; nil when none is near."
  [k]
  (let [text     (name k)
        distance (fn [candidate]
                   (if (str/starts-with? (name candidate) text)
                     1
                     (edit-distance text (name candidate))))
        best     (apply min-key distance (sort (concat (keys known) (keys fluree-only))))]
    (when (<= (long (distance best)) (max 2 (quot (count text) 3)))
      best)))

(defn- plain-keyword?
  "Keys with a namespace are the user's own; nobody misspells into one."
  [k]
  (and (keyword? k) (nil? (namespace k))))

(defn- unknown-key [k]
  (if-let [near (when (plain-keyword? k) (nearest k))]
    (str "The configuration key " k " is unknown; did you mean " near "?")
    (str "The configuration key " (pr-str k) " is unknown.")))

(defn- check-keys [config]
  (doseq [k (keys config)
          :when (not (or (contains? known k)
                         (contains? fluree-only k)
                         (qualified-keyword? k)))]
    (if (:strict-config config)
      (refuse! k (unknown-key k))
      (log/warn (unknown-key k))))
  (doseq [[k instead] (sort-by key (select-keys fluree-only (keys config)))]
    (log/warn (str "The configuration key " k " has no effect here: " instead "."))))

(defn- check-values [config]
  (doseq [[k [says ok?]] known
          :when (contains? config k)
          :let [v (get config k)]]
    (when-not (or (ok? v)
                  (and (nil? v) (not= :this-server k) (not= :servers k)))
      (refuse! k (str k " must be " says ", not " (binding [*print-length* 8, *print-level* 3] (pr-str v)) ".")))))

;; --------------------------------------------------------------------------------------------- names, addresses

(defn server-text
  "A server's name as the engine has it: a keyword without its colon."
  ^String [server]
  (if (keyword? server)
    (subs (str server) 1)
    (str server)))

(def ^:private multiaddress #"/(ip4|ip6|dns|dns4|dns6)/([^/]+)/tcp/(\d+)")
(def ^:private host-and-port #"(\[[^\]]+\]|[^\s:/\[\]]+):(\d+)")

(defn- checked-port [k text address]
  (let [port (parse-long text)]
    (when-not (and port (<= 1 port 65535))
      (refuse! k (str (pr-str address) " has no port from 1 to 65535.")))
    port))

(defn address
  "`text` as `host:port`: as it is, or from a multi-address as fluree/server writes them; nil when it is neither. Throws
  ex-info `:raft/config` for key `k` when the port is none."
  [k text]
  (let [text (server-text text)]
    (if-let [[_ kind host port] (re-matches multiaddress text)]
      (str (if (= "ip6" kind) (str "[" host "]") host) ":" (checked-port k port text))
      (when-let [[_ host port] (re-matches host-and-port text)]
        (str host ":" (checked-port k port text))))))

(defn- stated-addresses
  "The addresses that the configuration states, by server name."
  [{:keys [servers addresses]}]
  (merge (when (map? servers) servers) addresses))

(defn- address-of [server stated alone?]
  (let [text (get stated server)]
    (cond
      (and (some? text) (not (text? text)))
      (refuse! :addresses (str "The address of " (pr-str server) " must be \"host:port\", not " (pr-str text) "."))

      (some? text)
      (or (address :addresses text)
          (refuse! :addresses (str (pr-str text) " is not an address; it must be \"host:port\".")))

      :else
      (or (address :servers server)
          (when alone? "")
          (refuse! :addresses (str "The server " (pr-str server) " has no address: give :addresses {" (pr-str server)
                                   " \"host:port\"}, or a name that is one."))))))

(defn- check-distinct [k what xs]
  (when-let [[x] (first (filter #(not= 1 (val %)) (frequencies xs)))]
    (refuse! k (str "Two servers have the " what " " (pr-str x) "."))))

(defn- server-names [{:keys [servers this-server]}]
  (let [names (if (map? servers) (vec (keys servers)) (vec servers))]
    (when (empty? names)
      (refuse! :servers "The configuration needs :servers, the names of all servers of the cluster."))
    (check-distinct :servers "name" (map server-text names))
    (when-not (some #{this-server} names)
      (refuse! :this-server (str "This server, " (pr-str this-server) ", is not among :servers " (pr-str names) ".")))
    names))

(defn- with-addresses [config names]
  (let [stated (stated-addresses config)]
    (doseq [server (keys stated)
            :when (not (some #{server} names))]
      (refuse! :addresses (str "There is an address for " (pr-str server) ", which is not among :servers.")))
    (let [found (into {} (map (fn [server] [server (address-of server stated (= 1 (count names)))])) names)]
      (check-distinct :addresses "address" (remove #{""} (vals found)))
      found)))

;; --------------------------------------------------------------------------------------------------- the whole

(defn- check-machine [{:keys [state-machine reducer machine] :as config}]
  (case (count (remove nil? [state-machine reducer machine]))
    0 (refuse! :state-machine "The configuration needs a :state-machine or a :reducer.")
    1 nil
    (refuse! :state-machine "Only one of :state-machine, :reducer and :machine can be given."))
  (when (and (contains? config :initial-state) (nil? reducer))
    (refuse! :initial-state ":initial-state goes with a :reducer.")))

(defn- check-times [{:keys [timeout-ms heartbeat-ms]}]
  (let [least (* 2 (long heartbeat-ms))]
    (when (> least (long timeout-ms))
      (refuse! :timeout-ms (str "An election timeout (:timeout-ms) of " timeout-ms " ms cannot work with a :heartbeat-ms of "
                                heartbeat-ms ": one lost heartbeat would cost an election; take at least " least ".")))))

(defn checked
  "`config` with the defaults, after every check that needs no disk and no network. Unknown keys are a logged warning,
  with the nearest known one, or with `:strict-config` an error. Throws ex-info `:raft/config` with the `:key`."
  [config]
  (when-not (map? config)
    (refuse! nil (str "The configuration must be a map, not " (pr-str config) ".")))
  (when-not (contains? config :this-server)
    (refuse! :this-server "The configuration needs :this-server, the name of this server."))
  (check-keys config)
  (check-values config)
  (let [given  (into {} (remove (fn [[k v]] (and (nil? v) (not= :initial-state k)))) config)
        config (merge defaults given)]
    (check-machine config)
    (check-times config)
    (with-addresses config (server-names config))
    config))

(defn names
  "The names of all configured servers, as the user wrote them, in order."
  [{:keys [servers]}]
  (if (map? servers) (vec (keys servers)) (vec servers)))

(def ^:private as-they-are
  "Keys that go to the engine with their value, and the engine's name for them."
  {:listen :listen, :snapshot-threshold :snapshot-commands, :log-keep-entries :log-keep-entries, :retry-ms :retry-ms,
   :insecure :insecure, :join? :join-only, :log-level :log-level})

(defn- for-node [{:keys [this-server] :as config}]
  (into {:engine              :node
         :name                (server-text this-server)
         :servers             (update-keys (with-addresses config (names config)) server-text)
         :data-dir            (.getAbsolutePath (io/file (:log-directory config)))
         :machine             (if (= :kv (:machine config)) :kv :hosted)
         :heartbeat-ms        (:heartbeat-ms config)
         :election-timeout-ms (:timeout-ms config)
         :forward             (:forward? config)}
        (keep (fn [[ours theirs]]
                (when (contains? config ours)
                  [theirs (get config ours)])))
        as-they-are))

(defn for-engine
  "The engine's configuration for a [[checked]] one. The echo engine, `:engine :echo`, which answers every submission with
  its own bytes and exists to test this side of the bridge, takes a name only."
  [config]
  (case (:engine config)
    :node (for-node config)
    :echo {:engine :echo, :name (server-text (:this-server config))}))
