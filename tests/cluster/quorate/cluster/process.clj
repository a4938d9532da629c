(ns quorate.cluster.process
  "Ring servers as processes of their own: start, wait, stop, kill."
  (:require [clojure.java.io :as io]
            [clojure.string :as str])
  (:import (java.io File)
           (java.net InetAddress InetSocketAddress ServerSocket)
           (java.nio.file Files)
           (java.nio.file.attribute FileAttribute)
           (java.util List Map)
           (java.util.concurrent TimeUnit)))

(set! *warn-on-reflection* true)

(def ^:private own-variables
  ["PORT" "CLUSTER" "JOIN" "HOST" "DATA_DIR" "RAFT_PORT" "INSECURE" "COMMAND_TIMEOUT_MS" "TLS_CERT" "TLS_KEY" "TLS_CA"
   "HTTP_CONNECTIONS" "HTTP_HEADER_BYTES" "HTTP_BODY_BYTES" "HTTP_IDLE_MS" "HTTP_HEADER_MS" "HTTP_BODY_MS" "HTTP_SEND_MS"])

(defonce ^:private started (atom []))

(defn- free? [^long port]
  (try (with-open [socket (ServerSocket.)]
         (.setReuseAddress socket true)
         (.bind socket (InetSocketAddress. (InetAddress/getLoopbackAddress) (int port)))
         true)
       (catch java.io.IOException _ false)))

(defonce ^:private next-port (atom (+ 20000 (* 10 (long (rand-int 200))))))

(defn free-ports
  "`n` ports that are free, and free 10,000 higher too, below those that the system hands out by itself."
  [n]
  (vec (take n (filter #(and (free? %) (free? (+ 10000 (long %))))
                       (repeatedly #(swap! next-port (fn [p] (if (< 22600 (long p)) 20000 (inc (long p))))))))))

(defn temporary-folder
  "A new folder, as a path."
  []
  (str (Files/createTempDirectory "quorate-cluster" (make-array FileAttribute 0))))

(defn delete-folder
  "Deletes a folder and what is in it."
  [path]
  (run! #(io/delete-file % true) (reverse (file-seq (io/file path)))))

(defn- command ^List []
  (into [(str (System/getProperty "java.home") "/bin/java")
         (str "-Dquorate.library=" (System/getProperty "quorate.library"))
         "-Xmx512m" "-XX:+UseSerialGC" "-XX:TieredStopAtLevel=1" "-Xshare:auto"
         "-cp" (System/getProperty "quorate.server.classpath")]
        ["clojure.main" "-m" "quorate.ring.main" "server"]))

(defn launch
  "Starts a server with the `variables` (String → anything) in its environment; returns at once."
  [variables]
  (let [out     (File/createTempFile "quorate-server" ".out")
        err     (File/createTempFile "quorate-server" ".err")
        builder (doto (ProcessBuilder. ^List (command))
                  (.redirectOutput out)
                  (.redirectError err))
        env     ^Map (.environment builder)]
    (run! #(.remove env %) own-variables)
    (doseq [[k v] variables]
      (.put env k (str v)))
    (run! #(.deleteOnExit ^File %) [out err])
    (let [server {:process (.start builder) :port (get variables "PORT") :variables variables :out out :err err}]
      (swap! started conj server)
      server)))

(defn url [{:keys [port]} path] (str "http://localhost:" port path))
(defn out-text [{:keys [out]}] (slurp out))
(defn err-text [{:keys [err]}] (slurp err))
(defn alive? [{:keys [^Process process]}] (.isAlive process))

(defn wait-exit
  "The exit status, or nil when it is still running after `seconds`."
  [{:keys [^Process process]} seconds]
  (when (.waitFor process (long seconds) TimeUnit/SECONDS)
    (.exitValue process)))

(defn kill-9 [{:keys [^Process process] :as server}]
  (.destroyForcibly process)
  (wait-exit server 10))

(defn terminate
  "Sends SIGTERM; returns how long the process took to end, in milliseconds, or nil when it did not within 20 s."
  [{:keys [^Process process] :as server}]
  (let [began (System/nanoTime)]
    (.destroy process)
    (when (wait-exit server 20)
      (quot (- (System/nanoTime) began) 1000000))))

(defn eventually
  "Calls `f` until it is truthy, for `seconds`; returns what it returned last."
  [seconds f]
  (let [deadline (+ (System/nanoTime) (* (long seconds) 1000000000))]
    (loop []
      (let [result (f)]
        (if (or result (< deadline (System/nanoTime)))
          result
          (do (Thread/sleep 100)
              (recur)))))))

(defn report
  "What the server printed, for a failing test."
  [server]
  (str "--- server " (:port server) (if (alive? server) "" (str ", exited with " (wait-exit server 0)))
       "\n" (str/join "\n" (take-last 40 (str/split-lines (str (out-text server) (err-text server)))))))

(defn kill-all
  "Ends every process that was started here."
  []
  (run! kill-9 (filter alive? @started))
  (reset! started []))
