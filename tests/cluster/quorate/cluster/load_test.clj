(ns quorate.cluster.load-test
  "`bin/quorate-load` as a process, against servers that are processes."
  (:require [clojure.java.io :as io]
            [clojure.java.shell :as shell]
            [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [clojure.xml :as xml]
            [quorate.cluster.http :as http]
            [quorate.cluster.nodes :as nodes]
            [quorate.cluster.process :as process])
  (:import (java.io File IOException OutputStream)
           (java.nio.charset StandardCharsets)
           (java.util List Map)
           (java.util.concurrent TimeUnit)))

(set! *warn-on-reflection* true)

(defn- start
  "Starts a command with the loader's class path in its environment."
  [command]
  (let [out     (File/createTempFile "quorate-load" ".out")
        err     (File/createTempFile "quorate-load" ".err")
        builder (doto (ProcessBuilder. ^List command)
                  (.redirectOutput out)
                  (.redirectError err))]
    (run! #(.deleteOnExit ^File %) [out err])
    (.put ^Map (.environment builder) "QUORATE_CLASSPATH" (System/getProperty "quorate.server.classpath"))
    {:process (.start builder), :out out, :err err}))

(defn- loader
  "Starts the loader. A signal that the tests' own parent ignores is not ignored by it."
  [& arguments]
  (start (into ["env" "--default-signal=INT" "bin/quorate-load"] arguments)))

(defn- feed
  "Writes lines to its standard input; whether it took them."
  [{:keys [^Process process]} lines]
  (let [^OutputStream to (.getOutputStream process)]
    (try (doseq [line lines]
           (.write to (.getBytes (str line "\n") StandardCharsets/UTF_8)))
         (.flush to)
         true
         (catch IOException _ false))))

(defn- ended
  "Closes its input and waits for its end: `{:status :out :err}`, without a status when it did not end."
  [{:keys [^Process process out err]}]
  (try
    (try (.close (.getOutputStream process))
         ;; It may have gone before it read everything.
         (catch IOException _ nil))
    {:status (when (.waitFor process 90 TimeUnit/SECONDS) (.exitValue process)), :out (slurp out), :err (slurp err)}
    (finally (.destroyForcibly process))))

(defn- run-loader [lines & arguments]
  (let [loader (apply loader arguments)]
    (feed loader lines)
    (ended loader)))

(defn- address [{:keys [port]}] (str "localhost:" port))

(defn- with-servers
  "Calls `(f servers)` with so many servers that have a quorum."
  [n f]
  (nodes/with-folder
    (fn [folder]
      (let [ports (process/free-ports n)]
        (f (apply nodes/start (map #(nodes/variables folder ports %) ports)))))))

(defn- differing
  "Those of the pairs that the server does not have."
  [server pairs]
  (remove (fn [[k v]] (= v (:text (http/fetch server (str "/" k))))) pairs))

(def ^:private odd-keys
  "Keys that a path must escape, as they are in a line and in a URL."
  [["a/b//c" "a/b//c"] ["ü€" "%C3%BC%E2%82%AC"] ["q?x=1#f" "q%3Fx=1%23f"] ["100%" "100%25"] ["/first" "%2Ffirst"] ["p+;,=" "p+%3B,="]])

(deftest what-is-loaded-on-one-node-is-on-the-others
  (with-servers 3
    (fn [[a b c]]
      (let [pairs (concat (for [i (range 500)] [(str "k" i) (str "value " i)])
                          (for [[_ url] odd-keys] [url (str "of " url)]))
            lines (concat (for [i (range 500)] (str "k" i " value " i))
                          (for [[k url] odd-keys] (str k " of " url)))
            {:keys [status out err]} (run-loader lines (address a))]
        (is (= 0 status) err)
        (is (str/includes? out (str (count pairs) " operations in")) out)
        (is (str/includes? out "Errors: none.") out)
        (is (empty? (differing b pairs)))
        (is (empty? (differing c pairs))))
      (testing "invalid lines are named, and everything else is loaded"
        (let [{:keys [status out err]} (run-loader ["x 1" "alone" " empty" "_health x" "y 2"] (address b))]
          (is (= 1 status) err)
          (doseq [sentence ["Line 2 has no space." "Line 3 has an empty key." "Line 4 is refused: "]]
            (is (str/includes? err sentence) err))
          (is (str/includes? out "Invalid lines: 3.") out)
          (is (empty? (differing c [["x" "1"] ["y" "2"]])))))
      (testing "--strict stops at the first"
        (let [{:keys [status out]} (run-loader ["s1 1" "alone" "s2 2"] "--strict" "-c" "1" "--json" (address b))]
          (is (= 1 status))
          (is (str/includes? out "\"invalid_lines\":1") out)
          (is (= [200 404] (map #(:status (http/fetch a %)) ["/s1" "/s2"])))))
      (testing "generated load, at a rate, with a plot"
        (let [plot (File/createTempFile "quorate" ".svg")
              {:keys [status out err]} (run-loader [] "--rate" "200" "--duration" "2" "--mix" "1:1" "--read" "local" "--plot" (str plot)
                                                   (address a) (address b) (address c))]
          (is (= 0 status) err)
          (is (str/includes? out "400 operations in") out)
          (is (re-find #"writes +\d+" out) out)
          (is (re-find #"reads +\d+" out) out)
          (is (= :svg (:tag (xml/parse plot))))
          (io/delete-file plot))))))

(defn- writes-since-its-start
  "How many PUTs the server has acknowledged."
  [server]
  (or (some-> (re-find #"quorate_http_requests_total\{method=\"PUT\",status=\"201\"\} (\d+)" (:text (http/fetch server "/metrics")))
              second
              parse-long)
      0))

(deftest a-node-that-is-killed-under-load-costs-nothing
  (with-servers 3
    (fn [servers]
      (let [pairs   (for [i (range 9000)] [(str "k" i) (str i "-" (str/join (repeat 100 "v")))])
            thirds  (partition 3000 (map #(str/join " " %) pairs))
            leader  (let [port (nodes/leader-port (first servers))] (first (filter #(= port (:port %)) servers)))
            loader  (apply loader "--json" "-c" "16" (map address servers))]
        (is (some? leader))
        (is (feed loader (first thirds)))
        ;; At most what the pipe and one buffer hold is not under way yet.
        (let [feeding (future (feed loader (second thirds)))]
          (process/kill-9 leader)
          (is (deref feeding 60000 false)))
        (let [back (nodes/restart leader)]
          (is (feed loader (nth thirds 2)))
          (let [{:keys [status out err]} (ended loader)]
            (is (= 0 status) (str out err))
            (is (str/includes? out "\"errors\":{}") out)
            (is (str/includes? out "\"operations\":9000") out)
            (is (str/includes? out "\"retried\":{\"") (str "it was killed under load: " out)))
          (is (pos? (long (writes-since-its-start back))) "the node that came back is used again")
          (is (empty? (differing (first (remove #{leader} servers)) pairs))))))))

(defn- interrupted
  "Sends SIGINT once the loader has told of progress; what it ended with."
  [{:keys [^Process process err] :as loader}]
  (is (process/eventually 60 #(re-find #"[1-9][0-9,]* operations" (slurp err))) (slurp err))
  (is (zero? (:exit (shell/sh "kill" "-INT" (str (.pid process))))))
  (is (.waitFor process 20 TimeUnit/SECONDS))
  (ended loader))

(deftest interrupted-it-tells-what-there-is
  (with-servers 1
    (fn [[server]]
      (testing "while it generates"
        (let [{:keys [status out err]} (interrupted (loader "--duration" "300" "-c" "4" (address server)))]
          (is (= 130 status) err)
          (is (re-find #"[1-9][0-9,]* operations in [0-9.]+ s" out) out)
          (is (str/includes? out "Interrupted.") out)))
      (testing "while it waits for lines"
        (let [loader (loader "-c" "4" (address server))]
          (feed loader (for [i (range 10)] (str "i" i " x")))
          (let [{:keys [status out]} (interrupted loader)]
            (is (= 130 status))
            (is (str/includes? out "10 operations in") out))))
      (testing "on a terminal there is a bar, drawn anew"
        (let [command (str "bin/quorate-load --duration 3 -c 2 " (address server))
              {:keys [status out]} (ended (start ["script" "-qec" command "/dev/null"]))]
          (is (= 0 status) out)
          (is (re-find #"\r\[#+\.*\] +\d+%  \d s  [0-9,]+ operations  [0-9,]+/s  p99 [0-9.]+ ms" out) out)
          (is (str/includes? out "a second.") out)))
      (testing "a stopped server is an error, and so is one that is not there"
        (process/kill-9 server)
        (let [{:keys [status err]} (run-loader ["a 1"] "--timeout-ms" "500" (address server))]
          (is (= 1 status))
          (is (str/includes? err "No node can be reached") err))))))

(deftest bad-usage-is-one-sentence-and-status-2
  (doseq [[arguments sentence] {["--rate" "fast"] "--rate fast", ["nowhere"] "\"nowhere\" is no node", ["--plot" "/dev/null/x.svg" "-n" "1"] "--plot"}]
    (let [{:keys [status out err]} (apply run-loader [] arguments)]
      (is (= [2 ""] [status out]) err)
      (is (str/includes? err sentence) err)))
  (let [{:keys [status out]} (run-loader [] "--help")]
    (is (= 0 status))
    (is (str/includes? out "--concurrency") out)))
