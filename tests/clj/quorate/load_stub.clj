(ns quorate.load-stub
  "Servers that answer as a test wants, for tests of the loader; and the loader against them."
  (:require [clojure.string :as str]
            [quorate.load :as load]
            [quorate.load.options :as options])
  (:import (com.sun.net.httpserver HttpExchange HttpHandler HttpServer)
           (java.io ByteArrayInputStream InputStream)
           (java.net InetAddress InetSocketAddress)
           (java.nio.charset StandardCharsets)
           (java.util.concurrent ExecutorService Executors)))

(set! *warn-on-reflection* true)

(defn- reply! [^HttpExchange exchange {:keys [status ^String text break?]}]
  (if break?
    (.close exchange)
    (let [octets (.getBytes (or text "") StandardCharsets/UTF_8)]
      (.sendResponseHeaders exchange status (if (zero? (alength octets)) -1 (alength octets)))
      (when (pos? (alength octets))
        (.write (.getResponseBody exchange) octets))
      (.close exchange))))

(defn- handler ^HttpHandler [answer]
  (reify HttpHandler
    (handle [_ exchange]
      (let [body (String. (.readAllBytes (.getRequestBody exchange)) StandardCharsets/UTF_8)]
        (reply! exchange (answer {:method (.getRequestMethod exchange), :path (str (.getRawPath (.getRequestURI exchange)))
                                  :query (.getRawQuery (.getRequestURI exchange)), :body body}))))))

(defn with-server
  "Calls `(f node)` with a server on loopback that answers each request, `{:method :path :query :body}`, with `(answer request)`: `{:status :text}`, or
  `{:break? true}` for a connection that breaks. Asked for its health it is well, unless `answer` says otherwise. `node` is HOST:PORT."
  [answer f]
  (let [server (HttpServer/create (InetSocketAddress. (InetAddress/getLoopbackAddress) 0) 0)
        ^ExecutorService pool (Executors/newCachedThreadPool)]
    (try
      (doto server
        (.createContext "/" (handler answer))
        (.setExecutor pool)
        (.start))
      (f (str "127.0.0.1:" (.getPort (.getAddress server))))
      (finally
        (.stop server 0)
        (.shutdownNow pool)))))

(defn storing
  "An `answer` for [[with-server]] that keeps what is put in the atom `stored`: path → values in their order."
  [stored]
  (fn [{:keys [method path body]}]
    (case method
      "PUT" (do (swap! stored update path (fnil conj []) body)
                {:status 201, :text "created"})
      "GET" (cond (= "/_health" path) {:status 200, :text "ok\n"}
                  (@stored path)      {:status 200, :text (peek (@stored path))}
                  :else               {:status 404, :text "There is no such key.\n"}))))

(defn text-stream
  "The text as a stream."
  ^InputStream [^String text]
  (ByteArrayInputStream. (.getBytes text StandardCharsets/UTF_8)))

(defn options
  "What the arguments ask for, silently, with `input`, a text or a stream, for the standard input. `said` is an atom for what it says."
  [said input & arguments]
  (let [parsed (options/parse arguments)]
    (assert (nil? (:error parsed)) (:error parsed))
    (assoc parsed
           :input  [(if (instance? InputStream input) input (text-stream (or input ""))) 0]
           :screen {:terminal? false, :drawn (atom 0), :say #(swap! said conj %)})))

(defn run-load
  "The summary of a run, with `:said`, what it said line by line."
  [input & arguments]
  (let [said (atom [])]
    (assoc (load/run-load (apply options said input arguments))
           :said @said)))

(defn lines
  "`key value` lines of pairs."
  [pairs]
  (str/join (map (fn [[k v]] (str k " " v "\n")) pairs)))
