(ns quorate.impl.config
  "What a user writes in the map given to `start`: checked key by key, completed with defaults, and turned into the
  engine's own configuration."
  (:require [clojure.java.io :as io]
            [clojure.string :as str]
            [clojure.tools.logging :as log]
            [quorate.impl.conventions :as conventions]
            [quorate.impl.errors :as errors]
            [quorate.impl.spelling :as spelling])
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

(defn- tls? [x]
  (and (map? x) (= #{:cert :key :ca} (set (keys x))) (every? path? (vals x))))

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
   :spin-us                 ["a number of microseconds, 0 to 10000" #(and (int? %) (<= 0 (long %) 10000))]
   :snapshot-threshold      amount
   :log-keep-entries        amount
   :snapshot-timeout-ms     ms
   :log-history             amount
   :catch-up-rounds         amount
   :entries-max             amount
   :entry-cache-size        amount
   :snapshot-write          function
   :snapshot-reify          function
   :snapshot-install        function
   :snapshot-xfer           function
   :snapshot-list-indexes   function
   :send-rpc-fn             function
   :transport               [":native or :user" #{:native :user}]
   :callbacks               [":readme or :source" #{:readme :source}]
   :compat                  [":strict or nil" #{:strict}]
   :leader-change-fn        function
   :close-fn                function
   :error-fn                function
   :validate                function
   :command-chan            ["a channel of core.async" any?]
   :event-chan              ["a channel of core.async" any?]
   :forward?                flag
   :tls                     ["a map {:cert file, :key file, :ca file} of files in PEM" tls?]
   :insecure                flag
   :join?                   flag
   :strict-config           flag
   :log-level               ["one of :error :warn :info :debug :trace" #{:error :warn :info :debug :trace}]
   :engine                  [":node or :echo" #{:node :echo}]})

(def ^:private without-need
  "Keys of fluree/raft that are accepted and change nothing, with the reason."
  {:entries-max      "the engine batches by itself"
   :entry-cache-size "the engine's cache has a bound of its own"
   :catch-up-rounds  "a server that is added catches up before it votes, however long it takes"})

(def defaults
  "What is taken for keys that are not given. Other defaults are the engine's (:snapshot-threshold 100000,
  :log-keep-entries 20000, :retry-ms 250, :spin-us 300, :snapshot-timeout-ms 60000), but see [[fluree-snapshots]]."
  {:log-directory           "raftlog/"
   :timeout-ms              500
   :heartbeat-ms            100
   :default-command-timeout 4000
   :forward?                true
   :engine                  :node})

;; --------------------------------------------------------------------------------------------------- checking

(defn- plain-keyword?
  "Keys with a namespace are the user's own; nobody misspells into one."
  [k]
  (and (keyword? k) (nil? (namespace k))))

(defn- unknown-key [k]
  (if-let [near (when (plain-keyword? k) (spelling/nearest k (keys known)))]
    (str "The configuration key " k " is unknown; did you mean " near "?")
    (str "The configuration key " (pr-str k) " is unknown.")))

(defn- check-keys [config]
  (doseq [k (keys config)
          :when (not (or (contains? known k)
                         (qualified-keyword? k)))]
    (cond
      (:strict-config config)      (refuse! k (unknown-key k))
      (not= :strict (:compat config)) (log/warn (unknown-key k))))
  (doseq [[k because] (sort-by key (select-keys without-need (keys config)))]
    (log/debug (str "The configuration key " k " is not needed: " because ".")))
  (doseq [k conventions/snapshot-keys
          :when (and (some? (get config k)) (nil? (:state-machine config)))]
    (log/warn (str "The configuration key " k " has no effect here: it goes with a :state-machine."))))

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

(defn stated-address
  "The address that `config` states for `server`, as it is there; nil when it states none."
  [config server]
  (get (stated-addresses config) server))

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
                                   " \"host:port\"}, a name that is one, or a :send-rpc-fn that carries all messages."))))))

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

(defn- native-addresses [config names]
  (let [stated (stated-addresses config)]
    (doseq [server (keys stated)
            :when (not (some #{server} names))]
      (refuse! :addresses (str "There is an address for " (pr-str server) ", which is not among :servers.")))
    (let [found (into {} (map (fn [server] [server (address-of server stated (= 1 (count names)))])) names)]
      (check-distinct :addresses "address" (remove #{""} (vals found)))
      found)))

(defn- with-addresses
  "Address by server. With the user's own transport a server's address is its name."
  [{:keys [transport] :as config} names]
  (if (= :user transport)
    (into {} (map (juxt identity server-text)) names)
    (native-addresses config names)))

;; ------------------------------------------------------------------------------------------- what follows from it

(def ^:private ^:const log-keep-least
  "Log entries kept before a snapshot of a :state-machine, at the least; a small number would race with applying."
  1000)

(defn- fluree-snapshots
  "fluree's defaults, for a :state-machine with snapshots: one every 100 entries, and the log of the last 10 kept for servers
  that lag, at least [[log-keep-least]] entries."
  [{:keys [state-machine snapshot-write] :as config}]
  (if (and state-machine snapshot-write)
    (let [{:keys [snapshot-threshold log-history] :as config} (merge {:snapshot-threshold 100, :log-history 10} config)]
      (merge {:log-keep-entries (max (long log-keep-least) (* (long log-history) (long snapshot-threshold)))} config))
    config))

(defn- with-transport
  "`:transport` decided: :user carries all messages by `:send-rpc-fn`, and is taken when that is given and there are several
  servers, :native otherwise."
  [{:keys [transport send-rpc-fn tls] :as config} names]
  (when (and (= :user transport) (nil? send-rpc-fn))
    (refuse! :send-rpc-fn ":transport :user needs a :send-rpc-fn."))
  (let [decided (or transport
                    (if (and send-rpc-fn (> (count names) 1)) :user :native))]
    (when (and tls (= :user decided))
      (refuse! :tls ":tls goes with :transport :native; a :send-rpc-fn carries what servers say, and secures it, by itself."))
    (assoc config :transport decided)))

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
        config (merge defaults (when (= :strict (:compat given)) {:forward? false}) given)
        names  (server-names config)
        config (fluree-snapshots (with-transport config names))]
    (check-machine config)
    (check-times config)
    (conventions/check! config)
    (with-addresses config names)
    config))

(defn snapshot-directory
  "Where a README-style :snapshot-write writes its files: a path."
  ^String [{:keys [log-directory]}]
  (.getAbsolutePath (io/file (or log-directory (:log-directory defaults)) "user-snapshots")))

(defn names
  "The names of all configured servers, as the user wrote them, in order."
  [{:keys [servers]}]
  (if (map? servers) (vec (keys servers)) (vec servers)))

(def ^:private as-they-are
  "Keys that go to the engine with their value, and the engine's name for them."
  {:listen :listen, :snapshot-threshold :snapshot-commands, :log-keep-entries :log-keep-entries, :retry-ms :retry-ms,
   :spin-us :spin-us,
   :insecure :insecure, :join? :join-only, :log-level :log-level})

(def ^:private ^:const snapshot-margin-ms
  "The engine gives a user's snapshot up so much later than this side does: the nearer one says what was wrong."
  5000)

(def ^:const snapshot-timeout-ms-default "`:snapshot-timeout-ms` when it is not given, the engine's own default." 60000)

(defn user-snapshots?
  "True when the `:state-machine` of `config` has snapshot functions."
  [config]
  (boolean (and (:state-machine config)
                (some config [:snapshot-write :snapshot-reify :snapshot-install :snapshot-xfer]))))

(defn- snapshots-for-engine [{:keys [state-machine snapshot-timeout-ms] :as config}]
  (cond
    (user-snapshots? config) {:snapshot-timeout-ms (+ (long (or snapshot-timeout-ms snapshot-timeout-ms-default))
                                                      (long snapshot-margin-ms))}
    state-machine            {:snapshots false}
    snapshot-timeout-ms      {:snapshot-timeout-ms snapshot-timeout-ms}))

(defn- absolute [file]
  (.getAbsolutePath (io/file file)))

(defn- for-node [{:keys [this-server transport tls] :as config}]
  (into (cond-> {:engine              :node
                 :name                (server-text this-server)
                 :servers             (update-keys (with-addresses config (names config)) server-text)
                 :data-dir            (absolute (:log-directory config))
                 :machine             (if (= :kv (:machine config)) :kv :hosted)
                 :heartbeat-ms        (:heartbeat-ms config)
                 :election-timeout-ms (:timeout-ms config)
                 :forward             (:forward? config)}
          (= :user transport) (assoc :transport :host)
          tls                 (assoc :tls (update-vals tls absolute))
          true                (merge (snapshots-for-engine config)))
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
