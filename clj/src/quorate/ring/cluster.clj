(ns quorate.ring.cluster
  "The other servers, over HTTP: where they listen for raft, whether one is there to join, and what each says of itself.

  A server tells the others about itself at `/_node`, in EDN: `{:name :url :raft-port :status}`."
  (:require [clojure.edn :as edn]
            [quorate.ring.config :as config])
  (:import (java.io InputStream)
           (java.net URI)
           (java.net.http HttpClient HttpClient$Redirect HttpClient$Version HttpRequest HttpResponse HttpResponse$BodyHandlers)
           (java.nio.charset StandardCharsets)
           (java.time Duration)
           (java.util.concurrent CompletableFuture)
           (java.util.function Function)))

(set! *warn-on-reflection* true)

(def ^:private join-timeout-ms "How long one server of the list is asked when this one wants to join." 2000)
(def ^:private learn-timeout-ms "How long the others are asked for their raft ports at start." 1000)
(def ^:private report-timeout-ms "How long the others are asked for their status." 700)
(def ^:private report-bytes-max "Longest report of another server, in bytes." (* 256 1024))

(defn client
  "The HTTP client for the questions to other servers."
  ^HttpClient []
  (-> (HttpClient/newBuilder)
      (.version HttpClient$Version/HTTP_1_1)
      (.followRedirects HttpClient$Redirect/NEVER)
      (.connectTimeout (Duration/ofMillis join-timeout-ms))
      (.build)))

(defn- parse-report
  "The report in a response; nil when it is none."
  [^HttpResponse response]
  (with-open [^InputStream body (.body response)]
    (let [octets (.readNBytes body (int report-bytes-max))
          report (when (= 200 (.statusCode response))
                   (edn/read-string {:default (fn [_tag value] value)} (String. octets StandardCharsets/UTF_8)))]
      (when (and (map? report) (string? (:name report)) (int? (:raft-port report)))
        report))))

(defn ask
  "What the server at `url` says of itself: a CompletableFuture of its report, or of nil when it does not answer like one
  of us within `timeout-ms`."
  ^CompletableFuture [^HttpClient client url timeout-ms]
  (let [request (-> (HttpRequest/newBuilder (URI/create (str url "/_node")))
                    (.timeout (Duration/ofMillis timeout-ms))
                    (.build))]
    (-> (.sendAsync client request (HttpResponse$BodyHandlers/ofInputStream))
        (.thenApply (reify Function (apply [_ response] (parse-report response))))
        (.exceptionally (reify Function (apply [_ _] nil))))))

(defn reachable
  "The first of the `peers`, in their order, that answers as a server; nil when none does."
  [client peers]
  (first (filter #(.join (ask client (:url %) join-timeout-ms)) peers)))

(defn learn-raft-ports
  "The peers with the raft ports that those tell which are up; the others keep theirs, which follow from their URLs."
  [client peers]
  (let [answers (mapv #(ask client (:url %) learn-timeout-ms) peers)]
    (mapv (fn [peer ^CompletableFuture answer]
            (merge peer (select-keys (.join answer) [:raft-port])))
          peers answers)))

(defn servers
  "Name → raft address of this server and its peers, as `quorate.kv/open` takes them."
  [{:keys [name host raft-port peers]}]
  (into {name (config/raft-address host raft-port)}
        (map (juxt :name #(config/raft-address (:host %) (:raft-port %))))
        peers))

(defn own-report
  "What this server tells the others. `status` is nil while it starts."
  [{:keys [name raft-port]} status]
  {:name name, :url (str "http://" name), :raft-port raft-port, :status status})

(defn- member-names
  "The names of the servers that the status names as members; a map by name, or a sequence of maps with `:name`."
  [{:keys [members]}]
  (cond (map? members)        (map str (keys members))
        (sequential? members) (keep #(if (map? %) (:name %) %) members)))

(defn- member-entry [member-name ^CompletableFuture answer]
  (let [report (.join answer)]
    (if report
      {:name member-name, :url (:url report), :raft-port (:raft-port report), :reachable true, :status (:status report)}
      {:name member-name, :url (str "http://" member-name), :reachable false})))

(defn members
  "What `/_cluster` shows: this server's view, and what every server says of itself. A CompletableFuture."
  ^CompletableFuture [client config status]
  (let [own     (:name config)
        others  (->> (concat (map :name (:peers config)) (member-names status))
                     distinct
                     (remove #{own})
                     sort
                     vec)
        answers (mapv #(ask client (str "http://" %) report-timeout-ms) others)]
    (-> (CompletableFuture/allOf (into-array CompletableFuture answers))
        (.thenApply
         (reify Function
           (apply [_ _]
             {:name    own
              :leader  (:leader status)
              :members (into [(assoc (own-report config status) :reachable true)]
                             (map member-entry others answers))}))))))
