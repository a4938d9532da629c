(ns quorate.ring.server
  "Jetty, bounded: threads, connections, headers, idle time."
  (:require [ring.adapter.jetty :as jetty]
            [ring.util.servlet :as servlet])
  (:import (java.io IOException)
           (java.net BindException)
           (java.nio ByteBuffer)
           (java.nio.charset StandardCharsets)
           (javax.servlet AsyncContext)
           (javax.servlet.http HttpServletRequest HttpServletResponse)
           (org.eclipse.jetty.http HttpFields HttpHeader)
           (org.eclipse.jetty.server ConnectionLimit Connector HttpConfiguration$ConnectionFactory Request Server)
           (org.eclipse.jetty.server.handler AbstractHandler ErrorHandler)))

(set! *warn-on-reflection* true)

(def connections-max "Connections that one server has open at once." 1024)
(def threads-max "Threads that read requests; one that waits for the cluster holds none." 32)
(def ^:private threads-min 4)
(def ^:private queued-max "Requests that wait for a thread." 1024)
(def ^:private idle-ms "A connection that is silent for so long is closed, in milliseconds." 30000)
(def ^:private header-bytes-max "Largest request line with its headers, in bytes; it bounds the key too." 16384)
(def ^:private stop-ms "How long requests may go on when the server stops, in milliseconds." 1500)

(defn- write-response [^HttpServletResponse response {:keys [status headers ^bytes body]}]
  (.setStatus response status)
  (doseq [[k v] headers]
    (.setHeader response k v))
  (when body
    (.write (.getOutputStream response) body)))

(defn- raise [^HttpServletResponse response ^AsyncContext async]
  (when-not (.isCommitted response)
    (.sendError response 500))
  (.complete async))

(defn- async-handler
  "Jetty's face of the asynchronous ring handler. It differs from ring's own in that it writes a body of bytes in one
  piece; that one writes it byte by byte when it is asynchronous."
  ^AbstractHandler [handler]
  (proxy [AbstractHandler] []
    (handle [_target ^Request base ^HttpServletRequest request ^HttpServletResponse response]
      (let [async (doto (.startAsync request) (.setTimeout 0))]
        (.setHandled base true)
        (handler (servlet/build-request-map request)
                 (fn [answer]
                   (write-response response answer)
                   (.complete async))
                 (fn [_thrown]
                   (raise response async)))))))

(defn- refusal-handler
  "What Jetty itself refuses (a malformed request, headers beyond the limit) is answered with a sentence, not a page."
  ^ErrorHandler []
  (doto (proxy [ErrorHandler] []
          (badMessageError [status reason ^HttpFields fields]
            (.put fields HttpHeader/CONTENT_TYPE "text/plain; charset=utf-8")
            (ByteBuffer/wrap (.getBytes (str "The request is not possible: " (or reason status) ".\n") StandardCharsets/UTF_8))))
    (.setShowStacks false)))

(defn- bound-connector [^Connector connector]
  (let [factory (.getConnectionFactory connector HttpConfiguration$ConnectionFactory)]
    (doto (.getHttpConfiguration ^HttpConfiguration$ConnectionFactory factory)
      ;; A refusal that needs no body does not wait for one.
      (.setDelayDispatchUntilContent false))))

(defn- configure [^Server server handler]
  (doto server
    (.setHandler (async-handler handler))
    (.setErrorHandler (refusal-handler))
    (.setStopTimeout (long stop-ms))
    (.addBean (ConnectionLimit. (int connections-max) server)))
  (run! bound-connector (.getConnectors server)))

(defn- bind-failure
  "The BindException behind what Jetty threw, if there is one."
  [^Throwable thrown]
  (first (filter #(instance? BindException %) (take-while some? (iterate ex-cause thrown)))))

(defn start
  "Serves the asynchronous ring `handler` on `host` and `port`. Returns the Jetty server. Throws an ex-info with
  `:error :ring/address-in-use` and one sentence when it cannot listen there."
  ^Server [handler host port]
  (try
    (jetty/run-jetty handler {:async? true, :join? false, :host host, :port port
                              :min-threads threads-min, :max-threads threads-max, :max-queued-requests queued-max
                              :max-idle-time idle-ms, :request-header-size header-bytes-max, :send-server-version? false
                              :configurator #(configure % handler)})
    (catch IOException thrown
      (throw (ex-info (str "Cannot listen on " host ", port " port ": "
                           (or (some-> (bind-failure thrown) ex-message) (ex-message thrown)) ".")
                      {:error :ring/address-in-use} thrown)))))

(defn stop
  "Stops accepting, lets requests end for a moment, closes the rest."
  [^Server server]
  (.stop server))
