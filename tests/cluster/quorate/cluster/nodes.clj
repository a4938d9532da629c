(ns quorate.cluster.nodes
  "Servers and groups of servers for the tests, with data in folders that go afterwards."
  (:require [clojure.string :as str]
            [clojure.test :refer [is]]
            [quorate.cluster.http :as http]
            [quorate.cluster.process :as process]))

(set! *warn-on-reflection* true)

(def ready-seconds "How long a server may take to have a quorum; three JVMs start on few cores." 90)

(defn variables
  "The environment of the server on `port`, among the servers on `ports`."
  [folder ports port]
  (let [others (remove #{port} ports)]
    (cond-> {"PORT" port, "DATA_DIR" (str folder "/" port)}
      (seq others) (assoc "CLUSTER" (str/join "," (map #(str "http://localhost:" %) others))))))

(defn wait-ready
  "Waits until every one of the servers has a quorum; a failure of the test when one has not."
  [servers]
  (doseq [server servers]
    (is (process/eventually ready-seconds #(or (http/ready? server) (not (process/alive? server))))
        (process/report server))
    (is (process/alive? server) (process/report server)))
  servers)

(defn start
  "Starts servers with the environments, and waits until they have a quorum."
  [& environments]
  (wait-ready (mapv process/launch environments)))

(defn restart
  "Starts an ended server again, as it was but for `changes` of its environment."
  [server & {:as changes}]
  (first (start (merge (:variables server) changes))))

(defn with-folder
  "Calls `(f folder)`; ends every server afterwards and deletes the folder."
  [f]
  (let [folder (process/temporary-folder)]
    (try (f folder)
         (finally
           (process/kill-all)
           (process/delete-folder folder)))))

(defn leader-port
  "The HTTP port of the leader, as the server sees it; nil when it knows none."
  [server]
  (some->> (:text (http/fetch server "/_cluster"))
           (re-find #"\"leader\":\"localhost:(\d+)\"")
           second
           parse-long))

(defn everywhere?
  "Whether every server has `value` under `path` in its own, local state, within a time that suffices for catching up."
  [servers path value]
  (every? (fn [server]
            (process/eventually 30 #(= value (:text (http/local server path)))))
          servers))
