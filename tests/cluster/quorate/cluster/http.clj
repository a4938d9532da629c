(ns quorate.cluster.http
  "Requests to a server, as a client makes them; and as no client should."
  (:require [quorate.cluster.process :as process])
  (:import (java.io ByteArrayInputStream IOException)
           (java.net InetAddress Socket URI)
           (java.net.http HttpClient HttpClient$Version HttpRequest HttpRequest$BodyPublisher HttpRequest$BodyPublishers
                          HttpResponse HttpResponse$BodyHandlers)
           (java.nio.charset StandardCharsets)
           (java.time Duration)
           (java.util.function Supplier)))

(set! *warn-on-reflection* true)

(def ^:private client
  (delay (-> (HttpClient/newBuilder)
             (.version HttpClient$Version/HTTP_1_1)
             (.connectTimeout (Duration/ofSeconds 3))
             (.build))))

(defn- octets ^bytes [body]
  (if (string? body) (.getBytes ^String body StandardCharsets/UTF_8) body))

(defn- publisher ^HttpRequest$BodyPublisher [{:keys [body chunked?]}]
  (cond (nil? body) (HttpRequest$BodyPublishers/noBody)
        chunked?    (HttpRequest$BodyPublishers/ofInputStream
                     (reify Supplier (get [_] (ByteArrayInputStream. (octets body)))))
        :else       (HttpRequest$BodyPublishers/ofByteArray (octets body))))

(defn- answer [^HttpResponse response began]
  (let [headers (.headers response)
        header  #(.orElse (.firstValue headers %) nil)]
    {:status      (.statusCode response)
     :bytes       (.body response)
     :text        (String. ^bytes (.body response) StandardCharsets/UTF_8)
     :etag        (header "ETag")
     :type        (header "Content-Type")
     :allow       (header "Allow")
     :retry-after (header "Retry-After")
     :length      (header "Content-Length")
     :ms          (quot (- (System/nanoTime) (long began)) 1000000)}))

(defn ask
  "Sends a request; returns `{:status :text :bytes :etag ...}`, or `{:status nil}` when there was no answer."
  [server method path & {:keys [headers] :as options}]
  (let [builder (-> (HttpRequest/newBuilder (URI/create (process/url server path)))
                    (.timeout (Duration/ofSeconds 20))
                    (.method method (publisher options)))
        began   (System/nanoTime)]
    (doseq [[k v] headers]
      (.header builder k v))
    (try (answer (.send ^HttpClient @client (.build builder) (HttpResponse$BodyHandlers/ofByteArray)) began)
         (catch IOException thrown
           {:status nil :error (str thrown)}))))

(defn put [server path body & options] (apply ask server "PUT" path :body body options))
(defn fetch [server path & options] (apply ask server "GET" path options))
(defn delete [server path & options] (apply ask server "DELETE" path options))
(defn local [server path] (fetch server (str path "?consistency=local")))

(defn raw
  "Sends `request` as it is, over a connection of its own; returns the whole answer as text."
  [{:keys [port]} ^bytes request]
  (with-open [socket (Socket. (InetAddress/getLoopbackAddress) (int port))]
    (.setSoTimeout socket 10000)
    (doto (.getOutputStream socket)
      (.write request)
      (.flush))
    (String. (.readAllBytes (.getInputStream socket)) StandardCharsets/UTF_8)))

(defn raw-status
  "The status of a request for the raw `target`, or nil."
  [server method ^String target]
  (let [request (str method " " target " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")]
    (some-> (re-find #"^HTTP/1\.1 (\d+)" (raw server (.getBytes request StandardCharsets/ISO_8859_1)))
            second
            parse-long)))

(defn ready?
  "Whether the server answers with a quorum behind it."
  [server]
  (= 200 (:status (fetch server "/_health"))))
