(ns quorate.ring.config
  "The ring server's configuration, from environment variables:

    PORT HOST RAFT_PORT     where it listens (3000, 127.0.0.1, PORT + 10000)
    CLUSTER JOIN            URLs of the other servers; whether only to join a cluster that exists
    DATA_DIR                where its data is (data/PORT)
    COMMAND_TIMEOUT_MS      how long a request may wait for the cluster (4000)
    TLS_CERT TLS_KEY TLS_CA files in PEM, all three or none: raft, the traffic between the servers, by TLS with certificates on both
                            sides. A server's certificate must name the host by which the others know it, 127.0.0.1 for localhost
    INSECURE                true: hosts beyond this machine are right, although HTTP is plain text and open to whoever reaches it (and so
                            is raft, without TLS)
    HTTP_CONNECTIONS (1024) HTTP_HEADER_BYTES (16384) HTTP_BODY_BYTES (8388608) HTTP_IDLE_MS (30000) HTTP_HEADER_MS (10000)
    HTTP_BODY_MS (30000) HTTP_SEND_MS (60000)
                            what bounds a client, see `quorate.ring.server/defaults`

  Every refusal is an ex-info whose message is one sentence for a person, with `:error :ring/config`."
  (:require [clojure.java.io :as io]
            [clojure.string :as str]
            [quorate.ring.server :as server])
  (:import (java.net URI URISyntaxException)))

(set! *warn-on-reflection* true)

(def raft-port-offset
  "A node listens for its peers on its HTTP port plus this, unless RAFT_PORT says otherwise."
  10000)

(def default-port "The HTTP port when PORT is not set." 3000)

(def default-command-timeout-ms "How long a request may wait for the cluster, in milliseconds." 4000)

(defn- refuse [& sentence]
  (throw (ex-info (apply str sentence) {:error :ring/config})))

(defn- setting
  "The variable's value without surrounding space; nil when it is unset or blank."
  [env variable]
  (let [value (some-> (get env variable) str/trim)]
    (when-not (str/blank? value) value)))

(defn- whole-number
  "The variable as a whole number from `low` to `high`; `default` when it is not set."
  [env variable default low high]
  (if-let [text (setting env variable)]
    (let [number (when (re-matches #"[0-9]{1,9}" text) (parse-long text))]
      (if (and number (<= (long low) (long number) (long high)))
        number
        (refuse variable " is \"" text "\"; it must be a whole number from " low " to " high ".")))
    default))

(defn- truth [env variable]
  (let [text (setting env variable)]
    (case (some-> text str/lower-case)
      ("true" "yes" "1")      true
      (nil "false" "no" "0")  false
      (refuse variable " is \"" text "\"; it must be true or false."))))

(defn- bare-host
  "An IPv6 address without its brackets."
  [host]
  (str/replace host #"^\[|\]$" ""))

(defn- loopback? [host]
  (let [host (str/lower-case (bare-host host))]
    (or (contains? #{"localhost" "::1" "0:0:0:0:0:0:0:1"} host)
        (boolean (re-matches #"127\.\d{1,3}\.\d{1,3}\.\d{1,3}" host)))))

(defn- host-port [host port]
  (if (str/includes? host ":") (str "[" host "]:" port) (str host ":" port)))

(defn node-name
  "The name that every server gives to the one at `host` and `port`: loopback has many spellings, and one name."
  [host port]
  (host-port (if (loopback? host) "localhost" (str/lower-case (bare-host host))) port))

(defn raft-address
  "Where the server at `host` listens for its peers."
  [host raft-port]
  (host-port (if (loopback? host) "127.0.0.1" (bare-host host)) raft-port))

(defn- raft-port-of [what port]
  (let [raft-port (+ (long port) (long raft-port-offset))]
    (if (<= raft-port 65535)
      raft-port
      (refuse what " has port " port ", and " port " + " raft-port-offset
              " is no port for raft; take an HTTP port up to " (- 65535 (long raft-port-offset)) "."))))

(defn- bad-url [text why]
  (refuse "CLUSTER has the entry \"" text "\", " why "; write it like http://localhost:4000."))

(defn- parse-url ^URI [^String text]
  (try (URI. text)
       (catch URISyntaxException _ (bad-url text "which is not a URL"))))

(defn- peer
  "One entry of CLUSTER."
  [text]
  (let [uri  (parse-url text)
        host (.getHost uri)
        port (if (neg? (.getPort uri)) 80 (.getPort uri))]
    (cond
      (not= "http" (some-> (.getScheme uri) str/lower-case)) (bad-url text "which is not an http URL")
      (nil? host)                                            (bad-url text "which names no host")
      (not (<= 1 port 65535))                                (bad-url text "whose port is not one from 1 to 65535")
      (or (.getUserInfo uri) (.getQuery uri) (.getFragment uri)
          (not (contains? #{"" "/"} (.getPath uri))))        (bad-url text "which says more than a host and a port"))
    {:name      (node-name host port)
     :url       (str "http://" (node-name host port))
     :host      host
     :raft-port (raft-port-of (str "The server " text " in CLUSTER") port)}))

(defn- peers [env own-name]
  (let [found (->> (str/split (or (setting env "CLUSTER") "") #",")
                   (map str/trim)
                   (remove str/blank?)
                   (mapv peer))]
    (when (some #(= own-name (:name %)) found)
      (refuse "CLUSTER lists this server itself (" own-name "); it must list the other ones."))
    (when-let [[twice] (seq (keep (fn [[n c]] (when (< 1 (long c)) n)) (frequencies (map :name found))))]
      (refuse "CLUSTER lists " twice " twice."))
    found))

(defn- check-host [host]
  (when (contains? #{"0.0.0.0" "::" "*"} (bare-host host))
    (refuse "HOST is " host ", under which no other server could reach this one; set it to the address that they list in CLUSTER."))
  (when-not (re-matches #"[A-Za-z0-9._:\[\]-]+" host)
    (refuse "HOST is \"" host "\", which is not the name or address of a host.")))

(defn- check-trust
  "HTTP is plain text always, raft unless there are certificates; on this machine that is nobody else's business."
  [insecure? hosts]
  (when-let [[far] (and (not insecure?) (seq (remove loopback? hosts)))]
    (refuse far " is not on this machine, and HTTP is neither encrypted nor protected by a password (raft is encrypted with TLS_CERT, TLS_KEY and TLS_CA); set INSECURE=true if the network is trusted.")))

(defn- tls
  "The files of TLS_CERT, TLS_KEY and TLS_CA, as `quorate.raft/start` takes them; nil when none is given."
  [env]
  (let [variables {:cert "TLS_CERT", :key "TLS_KEY", :ca "TLS_CA"}
        files     (into {} (keep (fn [[k variable]] (when-let [path (setting env variable)] [k path]))) variables)]
    (when (seq files)
      (doseq [[k variable] variables]
        (cond (nil? (files k))                    (refuse variable " is not set; TLS_CERT, TLS_KEY and TLS_CA go together.")
              (not (.isFile (io/file (files k)))) (refuse variable " is \"" (files k) "\", which is no file.")))
      files)))

(def ^:private http-limits
  "What bounds a client: limit, variable, least and largest value."
  [[:connections-max  "HTTP_CONNECTIONS"  8    100000]
   [:header-bytes-max "HTTP_HEADER_BYTES" 1024 1048576]
   [:body-bytes-max   "HTTP_BODY_BYTES"   1    (:body-bytes-max server/defaults)]
   [:idle-ms          "HTTP_IDLE_MS"      100  3600000]
   [:header-ms        "HTTP_HEADER_MS"    100  600000]
   [:body-ms          "HTTP_BODY_MS"      100  600000]
   [:send-ms          "HTTP_SEND_MS"      100  600000]])

(defn- limits [env]
  (into {}
        (map (fn [[limit variable low high]] [limit (whole-number env variable (limit server/defaults) low high)]))
        http-limits))

(defn from-env
  "The configuration that the variables in the map `env` (String → String) describe:

    :name :host :port :raft-port :data-dir :join? :insecure? :command-timeout-ms
    :tls    {:cert :key :ca}, files, or nil
    :http   what bounds clients, see `quorate.ring.server/defaults`
    :peers  [{:name :url :host :raft-port} ...], in the order of CLUSTER

  Throws an ex-info with one sentence when something is wrong."
  [env]
  (let [host      (or (setting env "HOST") "127.0.0.1")
        port      (whole-number env "PORT" default-port 1 65535)
        _         (check-host host)
        own-name  (node-name host port)
        found     (peers env own-name)
        join?     (truth env "JOIN")
        insecure? (truth env "INSECURE")]
    (check-trust insecure? (cons host (map :host found)))
    (when (and join? (empty? found))
      (refuse "JOIN is true, but CLUSTER lists no server to join."))
    {:name               own-name
     :host               (bare-host host)
     :port               port
     :raft-port          (or (whole-number env "RAFT_PORT" nil 1 65535) (raft-port-of "This server" port))
     :data-dir           (or (setting env "DATA_DIR") (str "data/" port))
     :join?              join?
     :insecure?          insecure?
     :tls                (tls env)
     :http               (limits env)
     :command-timeout-ms (whole-number env "COMMAND_TIMEOUT_MS" default-command-timeout-ms 50 600000)
     :peers              found}))
