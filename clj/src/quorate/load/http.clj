(ns quorate.load.http
  "Keep-alive connections over HTTP/1.1 (Apache HttpCore 5, blocking): a request and its answer cost no change of threads. Against a
  server that only answered, with 64 connections on two cores, java.net.http's client took 101 µs of processor time for each request
  (41 µs when it ran all in its own thread), HttpCore 9 µs, bare sockets 6 µs; a loader shares its machine with what it measures."
  (:require [clojure.string :as str])
  (:import (java.io Closeable IOException)
           (java.net InetSocketAddress Socket)
           (java.nio.charset StandardCharsets)
           (org.apache.hc.core5.http ClassicHttpRequest ClassicHttpResponse ContentType HttpException)
           (org.apache.hc.core5.http.config CharCodingConfig Http1Config)
           (org.apache.hc.core5.http.impl DefaultConnectionReuseStrategy)
           (org.apache.hc.core5.http.impl.io DefaultBHttpClientConnection DefaultBHttpClientConnectionFactory HttpRequestExecutor)
           (org.apache.hc.core5.http.io.entity ByteArrayEntity EntityUtils)
           (org.apache.hc.core5.http.message BasicClassicHttpRequest)
           (org.apache.hc.core5.http.protocol HttpCoreContext)
           (org.apache.hc.core5.io CloseMode)
           (org.apache.hc.core5.util Timeout)
           (quorate.load.operation Operation)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private text-bytes-max "So much of an answer that refuses something is kept." 300)

(def ^:private buffer-bytes "Of each connection; a request that fits leaves in one piece, so that a server wakes up once for it." 16384)

(def ^:private ^DefaultBHttpClientConnectionFactory factory
  (DefaultBHttpClientConnectionFactory. (-> (Http1Config/custom)
                                            (.setBufferSize (int buffer-bytes))
                                            ;; What is shorter than this is not sent by itself, chunked or not.
                                            (.setChunkSizeHint (int buffer-bytes))
                                            (.build))
                                        CharCodingConfig/DEFAULT))
(def ^:private ^HttpRequestExecutor executor (HttpRequestExecutor.))
(def ^:private ^DefaultConnectionReuseStrategy reuse DefaultConnectionReuseStrategy/INSTANCE)

;; `texts` holds the text of the last answer that refused something. For one thread.
(deftype Connection [^DefaultBHttpClientConnection wire ^String authority ^objects texts]
  Closeable
  (close [_]
    (.close wire CloseMode/IMMEDIATE)))

(defn connect
  "A connection to a node, `{:host :port}`. Throws IOException when there is none within `timeout-ms`."
  ^Connection [{:keys [^String host port]} timeout-ms]
  (let [socket (Socket.)]
    (try
      (doto socket
        (.setTcpNoDelay true)
        (.connect (InetSocketAddress. host (int port)) (int timeout-ms)))
      (Connection. (.createConnection factory socket) (str host ":" port) (object-array 1))
      (catch Throwable thrown
        (.close socket)
        (throw thrown)))))

(defn close
  "Closes the connection."
  [^Connection connection]
  (.close connection))

(defn text
  "What the last answer said that refused something, on one line."
  [^Connection connection]
  (or (aget ^objects (.-texts connection) 0) ""))

(defn- take-body
  "Reads the body to its end; keeps its beginning when the answer is a refusal."
  [^Connection connection ^ClassicHttpResponse response]
  (let [entity (.getEntity response)]
    (if (and entity (<= 400 (.getCode response)))
      (let [octets (EntityUtils/toByteArray entity (int text-bytes-max))
            kept   (String. octets 0 (min (alength octets) (long text-bytes-max)) StandardCharsets/UTF_8)]
        (aset ^objects (.-texts connection) 0 (str/trim (str/replace kept #"\s+" " "))))
      (EntityUtils/consume entity))))

(defn- send-request
  ^long [^Connection connection ^ClassicHttpRequest request ^long timeout-ms]
  (let [^DefaultBHttpClientConnection wire (.-wire connection)
        context (HttpCoreContext/create)]
    (.setHeader request "Host" (.-authority connection))
    (.setSocketTimeout wire (Timeout/ofMilliseconds timeout-ms))
    (try
      (with-open [response (.execute executor request wire context)]
        (take-body connection response)
        (when-not (.keepAlive reuse request response context)
          (.close connection))
        (.getCode response))
      (catch HttpException thrown
        (throw (IOException. (str "This is no HTTP: " (ex-message thrown)) thrown))))))

(defn exchange
  "Sends the operation and reads the answer; returns its status. Throws IOException: SocketTimeoutException after `timeout-ms` of silence,
  others when the connection broke. The connection cannot be used afterwards then."
  ^long [^Connection connection ^Operation op ^long timeout-ms]
  (if (.-write? op)
    (let [request (BasicClassicHttpRequest. "PUT" ^String (.-target op))]
      (.setHeader request "Content-Length" (.-length op))
      (.setEntity request (ByteArrayEntity. ^bytes (.-octets op) (int (.-offset op)) (int (.-length op)) ContentType/APPLICATION_OCTET_STREAM))
      (send-request connection request timeout-ms))
    (send-request connection (BasicClassicHttpRequest. "GET" ^String (.-target op)) timeout-ms)))

(defn status-of
  "The status of a GET of `path`. Throws as [[exchange]] does."
  ^long [^Connection connection ^String path ^long timeout-ms]
  (send-request connection (BasicClassicHttpRequest. "GET" path) timeout-ms))
