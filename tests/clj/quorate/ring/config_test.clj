(ns quorate.ring.config-test
  (:require [clojure.test :refer [are deftest is testing]]
            [quorate.ring.cluster :as cluster]
            [quorate.ring.config :as config]
            [quorate.ring.server :as server])
  (:import (clojure.lang ExceptionInfo)))

(defn- refusal
  "The sentence with which the environment is refused; nil when it is accepted."
  [env]
  (try (config/from-env env) nil
       (catch ExceptionInfo e
         (is (= :ring/config (:error (ex-data e))))
         (ex-message e))))

(deftest the-defaults-are-a-single-node-on-loopback
  (is (= {:name "localhost:3000" :host "127.0.0.1" :port 3000 :raft-port 13000 :data-dir "data/3000"
          :join? false :insecure? false :tls nil :http server/defaults :command-timeout-ms 4000 :peers []}
         (config/from-env {}))))

(deftest three-terminals-agree-on-names-and-addresses
  (let [envs [{"CLUSTER" "http://localhost:4000,http://localhost:5000"}
              {"CLUSTER" "http://127.0.0.1:3000/, http://LOCALHOST:5000" "PORT" "4000"}
              {"CLUSTER" "http://[::1]:3000,http://localhost:4000" "PORT" "5000" "HOST" "localhost"}]
        seen (map (comp cluster/servers config/from-env) envs)]
    (is (= {"localhost:3000" "127.0.0.1:13000", "localhost:4000" "127.0.0.1:14000", "localhost:5000" "127.0.0.1:15000"}
           (first seen)))
    (is (apply = seen))
    (is (= ["localhost:4000" "localhost:5000"] (map :name (:peers (config/from-env (first envs))))) "in the order of the list")))

(deftest nonsense-is-refused-with-a-sentence
  (are [env pattern] (re-find pattern (str (refusal env)))
    {"PORT" "seventy"}                                    #"PORT is \"seventy\"; it must be a whole number from 1 to 65535\."
    {"PORT" "0"}                                          #"PORT"
    {"PORT" "65536"}                                      #"PORT"
    {"PORT" "60000"}                                      #"take an HTTP port up to 55535"
    {"RAFT_PORT" "-1"}                                    #"RAFT_PORT"
    {"JOIN" "maybe"}                                      #"JOIN is \"maybe\""
    {"JOIN" "true"}                                       #"lists no server to join"
    {"COMMAND_TIMEOUT_MS" "4s"}                           #"COMMAND_TIMEOUT_MS"
    {"CLUSTER" "localhost:4000"}                          #"\"localhost:4000\".*http://localhost:4000"
    {"CLUSTER" "https://localhost:4000"}                  #"not an http URL"
    {"CLUSTER" "http://:4000"}                            #"names no host"
    {"CLUSTER" "http://local host:4000"}                  #"not a URL"
    {"CLUSTER" "http://localhost:4000/path"}              #"more than a host and a port"
    {"CLUSTER" "http://localhost:99999"}                  #"port is not one"
    {"CLUSTER" "http://localhost:60000"}                  #"no port for raft"
    {"CLUSTER" "http://127.0.0.1:3000"}                   #"this server itself"
    {"CLUSTER" "http://localhost:4000,http://127.1.2.3:4000"} #"twice"
    {"HOST" "0.0.0.0"}                                    #"no other server could reach"
    {"HOST" "10.0.0.1"}                                   #"INSECURE=true"
    {"CLUSTER" "http://10.0.0.2:3000"}                    #"INSECURE=true"
    {"TLS_CERT" "project.clj"}                            #"TLS_KEY is not set; TLS_CERT, TLS_KEY and TLS_CA go together"
    {"TLS_CERT" "project.clj" "TLS_KEY" "nowhere" "TLS_CA" "project.clj"} #"TLS_KEY is \"nowhere\", which is no file"
    {"HOST" "10.0.0.1" "TLS_CERT" "project.clj" "TLS_KEY" "project.clj" "TLS_CA" "project.clj"} #"HTTP is neither encrypted"
    {"HTTP_CONNECTIONS" "0"}                              #"HTTP_CONNECTIONS is \"0\"; it must be a whole number from 8"
    {"HTTP_HEADER_MS" "soon"}                             #"HTTP_HEADER_MS"
    {"HTTP_BODY_BYTES" "8388609"}                         #"HTTP_BODY_BYTES"
    {"HOST" "a host"}                                     #"not the name or address"))

(deftest servers-on-other-machines-need-a-word-of-trust
  (let [config (config/from-env {"HOST" "10.0.0.1" "CLUSTER" "http://Node-2.lan:3000,http://[fe80::1]:3000" "INSECURE" "true" "RAFT_PORT" "9000"})]
    (is (= {"10.0.0.1:3000" "10.0.0.1:9000", "node-2.lan:3000" "Node-2.lan:13000", "[fe80::1]:3000" "[fe80::1]:13000"}
           (cluster/servers config)))))

(deftest blank-variables-are-as-good-as-none
  (testing "as a shell script leaves them"
    (is (= (config/from-env {}) (config/from-env {"PORT" "" "CLUSTER" " " "JOIN" "" "HOST" "" "DATA_DIR" ""})))))

(deftest limits-and-certificates-come-from-the-environment
  (let [file   "project.clj"
        config (config/from-env {"TLS_CERT" file "TLS_KEY" file "TLS_CA" file "HTTP_CONNECTIONS" "99" "HTTP_HEADER_MS" "500"})]
    (is (= {:cert file, :key file, :ca file} (:tls config)))
    (is (= (assoc server/defaults :connections-max 99 :header-ms 500) (:http config)))))
