(ns quorate.ring.main
  "The ring server: `lein ring server`. Its configuration is in the environment, see `quorate.ring.config`."
  (:require [quorate.ring.logging] ; first: it decides where Jetty's log goes
            [clojure.string :as str]
            [quorate.ring.cluster :as cluster]
            [quorate.ring.config :as config]
            [quorate.ring.handler :as handler]
            [quorate.ring.kv-store :as kv-store]
            [quorate.ring.metrics :as metrics]
            [quorate.ring.server :as server]
            [quorate.ring.store :as store])
  (:import (java.util.concurrent ArrayBlockingQueue ThreadFactory ThreadPoolExecutor TimeUnit)
           (java.util.concurrent.atomic AtomicLong)
           (org.eclipse.jetty.server Server)))

(set! *warn-on-reflection* true)

(def ^:private answer-threads "Threads that begin to write the answers to requests that waited for the cluster; none waits for a client." 16)

(def ^:private stop-ms
  "A stop that takes longer than this is given up, in milliseconds: the data is safe at any moment."
  8000)

(defn- refuse [error & sentence]
  (throw (ex-info (apply str sentence) {:error error})))

(defn- answer-executor
  "Its queue holds an answer for every connection that there can be."
  ^ThreadPoolExecutor [connections-max]
  (let [number  (AtomicLong.)
        factory (reify ThreadFactory
                  (newThread [_ task]
                    (doto (Thread. task (str "quorate-answers-" (.incrementAndGet number)))
                      (.setDaemon true))))]
    (doto (ThreadPoolExecutor. (int answer-threads) (int answer-threads) 30 TimeUnit/SECONDS
                               (ArrayBlockingQueue. (int connections-max)) ^ThreadFactory factory)
      (.allowCoreThreadTimeOut true))))

(defn- ask-to-join
  "With JOIN, a server of the list must be there: the first that answers, in their order."
  [client {:keys [join? peers]}]
  (when join?
    (if-let [peer (cluster/reachable client peers)]
      (println (str "Joining the cluster of " (:url peer) "."))
      (refuse :ring/nobody-to-join "JOIN is true, but none of " (str/join ", " (map :url peers)) " answered."))))

(defn- ring-handler [config client opened registry]
  (let [status #(some-> @opened store/status)]
    (handler/handler {:store-now          #(deref opened)
                      :members            #(cluster/members client config (status))
                      :report             #(cluster/own-report config (status))
                      :registry           registry
                      :command-timeout-ms (:command-timeout-ms config)
                      :body-bytes-max     (:body-bytes-max (:http config))
                      :body-ms            (:body-ms (:http config))
                      :executor           (answer-executor (:connections-max (:http config)))})))

(defn- open-store [client config]
  (ask-to-join client config)
  (kv-store/open (assoc config :servers (cluster/servers (update config :peers #(cluster/learn-raft-ports client %))))))

(defn start
  "Starts a server with the configuration of `quorate.ring.config/from-env`: HTTP first, so that a used port is found
  before any data is touched, then the node. Returns `{:http :store}` for `stop`. Throws an ex-info with one sentence
  when it cannot be; nothing is left running then."
  [config]
  (let [client (cluster/client)
        opened (atom nil)
        http   (server/start (ring-handler config client opened (metrics/registry)) (:host config) (:port config) (:http config))]
    (try
      (reset! opened (open-store client config))
      {:http http, :store opened}
      (catch Throwable thrown
        (server/stop http)
        (throw thrown)))))

(defn stop
  "Stops what `start` returned: HTTP first, then the node."
  [{:keys [http store]}]
  (server/stop http)
  (kv-store/close @store))

(defn- stop-in-time
  "For the shutdown hook: `stop`, but never longer than `stop-ms`."
  [running]
  (let [stopping (doto (Thread. ^Runnable #(stop running) "quorate-stop")
                   (.setDaemon true)
                   (.start))]
    (.join stopping (long stop-ms))))

(defn- give-up
  "One sentence, and an exit status that says failure."
  [sentence]
  (binding [*out* *err*]
    (println sentence)
    (flush))
  (System/exit 1))

(defn- check-arguments [arguments]
  (when-not (or (empty? arguments) (= ["server"] arguments) (= ["server-headless"] arguments))
    (refuse :ring/usage "The ring server takes no arguments but \"server\"; PORT, CLUSTER, JOIN and all else are set in the environment.")))

(defn- start-from-environment [arguments]
  (check-arguments (vec arguments))
  (let [config  (config/from-env (System/getenv))
        running (start config)]
    (.addShutdownHook (Runtime/getRuntime) (Thread. ^Runnable #(stop-in-time running) "quorate-shutdown"))
    (println (str "Quorate serves http://" (:name config) " (raft on port " (:raft-port config) ", data in " (:data-dir config) ")."))
    (flush)
    running))

(defn -main
  "Runs until the process is told to stop."
  [& arguments]
  (let [running (try (start-from-environment arguments)
                     (catch Throwable thrown
                       (give-up (if (:error (ex-data thrown))
                                  (ex-message thrown)
                                  (str "The server could not start: " thrown)))))]
    (.join ^Server (:http running))))
