(ns quorate.ring.server
  "Jetty, bounded: threads, connections, headers, bodies, and the time for each. No thread waits for a client: bodies are read and answers
  written as far as the client goes along, and a slow one is cut off (`quorate.ring.patience`)."
  (:require [quorate.ring.patience :as patience]
            [ring.adapter.jetty :as jetty]
            [ring.util.servlet :as servlet])
  (:import (java.io ByteArrayOutputStream IOException)
           (java.net BindException)
           (java.nio ByteBuffer)
           (java.nio.charset StandardCharsets)
           (java.util.concurrent CompletableFuture)
           (javax.servlet AsyncContext ReadListener ServletInputStream)
           (javax.servlet.http HttpServletRequest HttpServletResponse)
           (org.eclipse.jetty.http HttpFields HttpHeader)
           (org.eclipse.jetty.server AbstractConnector ConnectionLimit HttpConfiguration$ConnectionFactory HttpOutput Request Server)
           (org.eclipse.jetty.server.handler AbstractHandler ErrorHandler)
           (org.eclipse.jetty.util Callback)
           (org.eclipse.jetty.util.component AbstractLifeCycle)))

(set! *warn-on-reflection* true)

(def defaults
  "Limits of a server, times in milliseconds:

    :connections-max   connections open at once
    :header-bytes-max  the request line with its headers, in bytes; it bounds the key too
    :body-bytes-max    the body of a PUT, in bytes; the engine's largest command, of which key and framing are a part
    :idle-ms           a connection on which nothing moves is closed after so long
    :header-ms         from the first byte of a request to the end of its headers
    :body-ms           from there to the end of its body
    :send-ms           for the answer"
  {:connections-max 1024, :header-bytes-max 16384, :body-bytes-max (* 8 1024 1024)
   :idle-ms 30000, :header-ms 10000, :body-ms 30000, :send-ms 60000})

(def threads-max "Threads that handle requests; one that waits, for the cluster or a client, holds none." 32)
(def ^:private threads-min 4)
(def ^:private queued-max "Requests that wait for a thread." 1024)
(def ^:private stop-ms "How long requests may go on when the server stops, in milliseconds." 1500)
(def ^:private read-bytes "Bytes of a body that are read at a time." 16384)

(def ^:private body-grace-ms
  "The handler refuses a slow body with a sentence; a connection that is still open so much later is closed."
  2000)

(defn- write-response
  "Writes the response as the client takes it, then completes `async`."
  [^HttpServletResponse response ^AsyncContext async {:keys [status headers ^bytes body]}]
  (.setStatus response status)
  (doseq [[k v] headers]
    (.setHeader response k v))
  (if body
    (.sendContent ^HttpOutput (.getOutputStream response) (ByteBuffer/wrap body)
                  (reify Callback
                    (succeeded [_] (.complete async))
                    (failed [_ _thrown] (.complete async))))
    (.complete async)))

(defn- take-in
  "Reads what has come, as long as `taken?` agrees to so many bytes more; false when it does not."
  [^ServletInputStream from ^ByteArrayOutputStream to taken?]
  (let [buffer (byte-array read-bytes)]
    (loop []
      (if (and (.isReady from) (not (.isFinished from)))
        (let [got (.read from buffer)]
          (cond (not (pos? got)) (recur)
                (taken? got)     (do (.write to buffer 0 got)
                                     (recur))
                :else            false))
        true))))

(defn- came-with-head
  "The body, when it is short and all of it is here; nil otherwise. Listening for it would cost two more passes through Jetty and a timer."
  ^bytes [^HttpServletRequest request ^ServletInputStream from taken?]
  (let [length (.getContentLength request)]
    (when (and (<= 0 length (long read-bytes)) (<= length (.available from)))
      (if (taken? length)
        ;; One byte more than there is: Jetty learns that the request is at its end.
        (.readNBytes from (inc length))
        (byte-array 0)))))

(defn- listen-for-body
  "A future of the body, read as it comes, without a thread."
  ^CompletableFuture [^ServletInputStream from taken?]
  (let [to   (ByteArrayOutputStream.)
        done (CompletableFuture.)]
    (.setReadListener from (reify ReadListener
                             (onDataAvailable [_]
                               (when-not (or (.isDone done) (take-in from to taken?))
                                 (.complete done (.toByteArray to))))
                             (onAllDataRead [_] (.complete done (.toByteArray to)))
                             (onError [_ thrown] (.completeExceptionally done thrown))))
    done))

(defn- read-body
  "A future of the body. `taken?` is asked for each piece, by its number of bytes, whether it may be kept; when it may not, the future is of
  what was kept so far."
  ^CompletableFuture [^HttpServletRequest request taken?]
  (let [from (.getInputStream request)]
    (if-let [octets (came-with-head request from taken?)]
      (CompletableFuture/completedFuture octets)
      (listen-for-body from taken?))))

(defn- raise [^HttpServletResponse response ^AsyncContext async]
  (when-not (.isCommitted response)
    (.sendError response 500))
  (.complete async))

(defn- async-handler
  "Jetty's face of the asynchronous ring handler. It differs from ring's own in that it waits for no client: the request has
  `:read-body`, see [[read-body]], and answers, whose bodies are bytes, are written in one piece."
  ^AbstractHandler [handler]
  (proxy [AbstractHandler] []
    (handle [_target ^Request base ^HttpServletRequest request ^HttpServletResponse response]
      (let [async (doto (.startAsync request) (.setTimeout 0))]
        (.setHandled base true)
        (handler (assoc (servlet/build-request-map request) :read-body #(read-body request %))
                 (fn [answer]
                   (write-response response async answer))
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

(defn- bound-connector [^AbstractConnector connector listeners]
  (let [factory (.getConnectionFactory connector HttpConfiguration$ConnectionFactory)]
    (doto (.getHttpConfiguration ^HttpConfiguration$ConnectionFactory factory)
      ;; A refusal that needs no body does not wait for one.
      (.setDelayDispatchUntilContent false)))
  (run! #(.addBean connector %) listeners))

(defn- ends-with
  "A bean that calls `stop` when the server stops."
  ^AbstractLifeCycle [stop]
  (proxy [AbstractLifeCycle] []
    (doStop [] (stop))))

(defn- configure [^Server server handler {:keys [connections-max] :as limits}]
  (let [{:keys [listeners stop]} (patience/start (update limits :body-ms + (long body-grace-ms)))]
    (doto server
      (.setHandler (async-handler handler))
      (.setErrorHandler (refusal-handler))
      (.setStopTimeout (long stop-ms))
      (.addBean (ConnectionLimit. (int connections-max) server))
      (.addBean (ends-with stop)))
    (run! #(bound-connector % listeners) (.getConnectors server))))

(defn- bind-failure
  "The BindException behind what Jetty threw, if there is one."
  [^Throwable thrown]
  (first (filter #(instance? BindException %) (take-while some? (iterate ex-cause thrown)))))

(defn start
  "Serves the asynchronous ring `handler` on `host` and `port`, within `limits`, a map like [[defaults]]. Returns the Jetty server. Throws
  an ex-info with `:error :ring/address-in-use` and one sentence when it cannot listen there."
  ^Server [handler host port {:keys [idle-ms header-bytes-max] :as limits}]
  (try
    (jetty/run-jetty handler {:async? true, :join? false, :host host, :port port
                              :min-threads threads-min, :max-threads threads-max, :max-queued-requests queued-max
                              :max-idle-time idle-ms, :request-header-size header-bytes-max, :send-server-version? false
                              :configurator #(configure % handler limits)})
    (catch IOException thrown
      (throw (ex-info (str "Cannot listen on " host ", port " port ": "
                           (or (some-> (bind-failure thrown) ex-message) (ex-message thrown)) ".")
                      {:error :ring/address-in-use} thrown)))))

(defn stop
  "Stops accepting, lets requests end for a moment, closes the rest."
  [^Server server]
  (.stop server))
