(ns quorate.cluster.slow-test
  "Clients that take their time, or all connections: others are served, and they are cut off."
  (:require [clojure.string :as str]
            [clojure.test :refer [deftest is testing use-fixtures]]
            [quorate.cluster.http :as http]
            [quorate.cluster.nodes :as nodes]
            [quorate.cluster.process :as process])
  (:import (java.io IOException)
           (java.net InetAddress InetSocketAddress Socket SocketTimeoutException)
           (java.nio.charset StandardCharsets)))

(set! *warn-on-reflection* true)

(def ^:dynamic *server* nil)

(def ^:private connections 64)

(use-fixtures :once
  (fn [run]
    (nodes/with-folder
      (fn [folder]
        (let [[port] (process/free-ports 1)]
          (binding [*server* (first (nodes/start (assoc (nodes/variables folder [port] port)
                                                        "HTTP_CONNECTIONS" connections, "HTTP_IDLE_MS" 15000, "HTTP_BODY_BYTES" 4000000
                                                        "HTTP_HEADER_MS" 1500, "HTTP_BODY_MS" 1500, "HTTP_SEND_MS" 12000)))]
            (run)))))))

(defn- open ^Socket []
  (doto (Socket.)
    (.setReceiveBufferSize 8192)
    (.connect (InetSocketAddress. (InetAddress/getLoopbackAddress) (int (:port *server*))))
    (.setSoTimeout 20000)))

(defn- send-text [^Socket socket ^String text]
  (doto (.getOutputStream socket)
    (.write (.getBytes text StandardCharsets/ISO_8859_1))
    (.flush)))

(defn- rest-of
  "What comes until the server ends the connection, or `:open` when it does not within twenty seconds."
  [^Socket socket]
  (try (String. (.readAllBytes (.getInputStream socket)) StandardCharsets/ISO_8859_1)
       (catch SocketTimeoutException _ :open)
       (catch IOException _ "")))

(defn- dripping
  "Sends a byte to each socket that takes one, ten times a second, until the promise `stop` is delivered. A future."
  [sockets stop]
  (future
    (while (= :go-on (deref stop 100 :go-on))
      (doseq [socket sockets]
        (try (send-text socket "x")
             (catch IOException _ nil))))))

(defn- with-sockets
  "Calls `(f sockets)` with `n` sockets that have sent `text`, and closes them."
  [n text f]
  (let [sockets (vec (repeatedly n open))]
    (try
      (run! #(send-text % text) sockets)
      (f sockets)
      (finally (run! (fn [^Socket socket] (.close socket)) sockets)))))

(defn- others-are-served []
  (dotimes [n 10]
    (is (= 201 (:status (http/put *server* (str "/other-" n) (str n)))))
    (is (= (str n) (:text (http/fetch *server* (str "/other-" n)))))))

(defn- with-drips
  "More clients than the server has threads have sent `text` and drip on: others are served, then those are cut off. Returns what each
  was answered."
  [text]
  (with-sockets 40 text
    (fn [sockets]
      (let [stop (promise)
            drip (dripping sockets stop)]
        (try
          (others-are-served)
          (let [answers (mapv #(deref (future (rest-of %)) 25000 :open) sockets)]
            (is (not-any? #{:open} answers) "each is cut off although it sends on")
            answers)
          (finally
            (deliver stop :stop)
            @drip))))))

(deftest headers-that-drip
  (is (= #{""} (set (with-drips "GET /k HTTP/1.1\r\nHost: x\r\nX-Slow: ")))))

(deftest a-request-line-that-drips
  (is (= #{""} (set (with-drips "GET /")))))

(deftest bodies-that-drip
  (let [answers (with-drips "PUT /dripped HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")]
    (is (every? #(or (= "" %) (str/starts-with? % "HTTP/1.1 408")) answers) (pr-str (frequencies answers)))
    (is (some #(str/includes? % "The body took longer than 1.5 seconds.") answers)))
  (let [answers (with-drips "PUT /dripped HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n")]
    (is (every? #(or (= "" %) (str/starts-with? % "HTTP/1.1 408")) answers) (pr-str (frequencies answers))))
  (is (= 404 (:status (http/fetch *server* "/dripped"))) "nothing of it was written"))

(deftest a-body-where-none-is-wanted
  (let [answers (with-drips "GET /absent HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")]
    (is (every? #(or (= "" %) (str/starts-with? % "HTTP/1.1 404")) answers))))

(deftest answers-that-nobody-reads
  (is (= 201 (:status (http/put *server* "/large" (byte-array 4000000)))))
  ;; Several to a connection: the sockets' buffers would hold one.
  (with-sockets 40 (str/join (repeat 8 "GET /large HTTP/1.1\r\nHost: x\r\n\r\n"))
    (fn [sockets]
      ;; Were a thread to wait for each, these would be served when the first are cut off: later than a client waits.
      (others-are-served)
      (Thread/sleep 14000)
      (let [came (mapv #(let [answer (rest-of %)] (if (string? answer) (count answer) answer)) sockets)]
        (is (every? #(and (int? %) (< (long %) 24000000)) came)
            "they are cut off, so what was buffered is all that comes"))))
  (others-are-served))

(deftest all-connections-taken
  (testing "by clients that say nothing"
    (with-sockets (* 2 (long connections)) ""
      (fn [_] (others-are-served))))
  (testing "by clients whose headers drip"
    (with-sockets (* 2 (long connections)) "GET /k HTTP/1.1\r\nX-Slow: "
      (fn [sockets]
        (let [stop (promise)
              drip (dripping sockets stop)]
          (try (others-are-served)
               (finally (deliver stop :stop) @drip)))))))

(deftest more-than-fits
  (is (re-find #"^HTTP/1.1 431" (http/raw *server* (.getBytes (str "GET /k HTTP/1.1\r\nHost: x\r\nX-Large: " (str/join (repeat 20000 "x")) "\r\n\r\n")))))
  (is (re-find #"^HTTP/1.1 413" (http/raw *server* (.getBytes "PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: 4000001\r\n\r\n"))))
  (is (= 201 (:status (http/put *server* "/k" (byte-array 4000000)))))
  (is (contains? #{413 nil} (:status (http/put *server* "/k" (byte-array 4000001) :chunked? true)))))
