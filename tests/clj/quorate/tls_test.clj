(ns quorate.tls-test
  "Servers that speak TLS with each other, with the certificates of `docs/security.md`; and those who have none."
  (:require [clojure.java.io :as io]
            [clojure.java.shell :as shell]
            [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.raft :as raft])
  (:import (clojure.lang ExceptionInfo)
           (java.io File IOException)
           (java.net InetAddress Socket)))

(set! *warn-on-reflection* true)

(defn- commands
  "The shell commands of the document."
  []
  (str/join "\n" (map second (re-seq #"(?s)```sh\n(.*?)```" (slurp "docs/security.md")))))

(defn- make-certificates [^File directory]
  (.mkdirs directory)
  (let [{:keys [exit err]} (shell/sh "sh" "-e" "-c" (commands) :dir directory)]
    (is (zero? exit) err)))

(defn- openssl? []
  (try (zero? (:exit (shell/sh "openssl" "version")))
       (catch IOException _ false)))

(defn- with-certificates
  "Calls `(f directory certificates)`: an empty directory, and one with what the commands make."
  [f]
  (if (openssl?)
    (clusters/with-directory
     (fn [directory]
       (let [certificates (io/file directory "certificates")]
         (make-certificates certificates)
         (f directory certificates))))
    (println "skipped: openssl is not installed")))

(defn- files [certificates server]
  {:cert (io/file certificates (str server ".pem")), :key (str (io/file certificates (str server ".key"))), :ca (io/file certificates "ca.pem")})

(defn- start [directory servers server tls]
  (raft/start {:this-server server, :servers servers, :log-directory (io/file directory server), :log-level :error, :tls tls
               :initial-state [], :reducer (fn [state entry _] [(conj state entry) (count state)])}))

(defn- entry! [node entry]
  (let [got (promise)]
    (raft/new-entry node entry #(deliver got %) 10000)
    (deref got 15000 ::never)))

(defn- with-cluster
  "Calls `(f nodes)` with a node a server in `tls`, a map from names to certificates. Waits until those in `expected` are a cluster."
  [directory tls expected f]
  (let [servers (zipmap (keys tls) (clusters/free-addresses (count tls)))
        nodes   (atom {})]
    (try
      (doseq [[server files] tls]
        (swap! nodes assoc server (start directory servers server files)))
      (let [known (map @nodes expected)]
        (is (eventually 40 #(every? (comp :leader raft/status) known)) (pr-str (map raft/status known))))
      (f @nodes servers)
      (finally (run! raft/close (vals @nodes))))))

(defn- last-errors [node]
  (str/join " " (keep :last-error (:peers (raft/status node)))))

(deftest three-servers-with-certificates-are-a-cluster
  (with-certificates
    (fn [directory certificates]
      (with-cluster directory (into {} (map (juxt identity #(files certificates %))) ["a" "b" "c"]) ["a" "b" "c"]
        (fn [nodes servers]
          (doseq [[server node] nodes]
            (is (nat-int? (entry! node server)) server))
          (doseq [node (vals nodes)]
            (is (eventually #(= #{"a" "b" "c"} (set (raft/state node))))))
          (testing "and say nothing to those who speak plain text"
            (let [[host port] (str/split (get servers "a") #":")]
              (with-open [socket (Socket. (InetAddress/getByName host) (int (parse-long port)))]
                (.setSoTimeout socket 10000)
                (.write (.getOutputStream socket) (.getBytes "GET / HTTP/1.1\r\n\r\n"))
                (let [answer (String. (.readAllBytes (.getInputStream socket)) "ISO-8859-1")]
                  (is (not (re-find #"QRTP|\"|node|server" answer)) "an alert of TLS at most")
                  (is (< (count answer) 16))))))
          (testing "files that cannot be used are told of, and the former ones serve on"
            (let [cert  (io/file certificates "a.pem")
                  whole (slurp cert)]
              (spit cert "no certificate")
              (is (eventually #(re-find #"a\.pem of :tls .* The former certificates stay in use" (str (:problem (raft/status (nodes "a")))))))
              (is (nat-int? (entry! (nodes "a") "while they are wrong")))
              (spit cert whole)
              (is (eventually #(nil? (:problem (raft/status (nodes "a"))))))))
          (testing "new ones are taken up without a restart"
            ;; A new CA: nobody who knows only the old one gets in any more, so it is the new ones that are used.
            (run! io/delete-file (filter #(.isFile ^File %) (file-seq certificates)))
            (make-certificates certificates)
            (raft/close (nodes "c"))
            (Thread/sleep 5000)
            (let [again (start directory servers "c" (files certificates "c"))]
              (try
                (is (nat-int? (entry! (nodes "a") "after the change")))
                (is (eventually 30 #(some #{"after the change"} (raft/state again))) (last-errors again))
                (finally (raft/close again))))))))))

(deftest one-without-the-right-certificate-gets-nothing
  (with-certificates
    (fn [directory certificates]
      (let [strange (io/file directory "strange")]
        (make-certificates strange)
        (doseq [[kind wrong said] [["of another CA" (files strange "c") #"not signed by the CA of :tls"]
                                   ["of another CA, though it trusts ours" (assoc (files strange "c") :ca (io/file certificates "ca.pem"))
                                    #"did not accept this node's certificate"]
                                   ["none, plain text" nil #"speaks TLS, and this node does not"]]]
          (testing kind
            (let [directory (io/file directory (str (hash kind)))]
              (with-cluster directory {"a" (files certificates "a"), "b" (files certificates "b"), "c" wrong} ["a" "b"]
                (fn [{:strs [a b c]} _]
                  (is (nat-int? (entry! a "secret")) "the others go on")
                  (is (eventually #(= ["secret"] (raft/state b))))
                  (is (eventually #(re-find said (last-errors c))) (last-errors c))
                  (let [status (raft/status c)]
                    (is (= [nil nil 0] ((juxt :cluster-id :leader :index) status)) (pr-str status))
                    (is (= [] (raft/state c))))
                  (is (re-find #"is not trusted|ended the connection|not accept" (str (last-errors a) (last-errors b)))
                      "and the others say why it is not reached"))))))))))

(deftest beyond-loopback-plain-text-is-refused
  (clusters/with-directory
   (fn [directory]
     (let [refusal (fn [config]
                     (try (raft/close (raft/start (merge {:this-server "a", :log-directory directory, :reducer (fn [s _ _] [s nil])} config)))
                          nil
                          (catch ExceptionInfo e (ex-message e))))
           near    (first (clusters/free-addresses 1))]
       (doseq [config [{:servers {"a" "192.0.2.1:7001"}}
                       {:servers {"a" near, "b" "192.0.2.1:7001"}}
                       {:servers {"a" near}, :listen "0.0.0.0:7001"}]]
         (is (re-find #"not on loopback.* give certificates by :tls, or set :insecure true" (str (refusal config))) (pr-str config)))
       (is (nil? (refusal {:servers {"a" near, "b" "192.0.2.1:7001"}, :insecure true})))
       (is (re-find #":tls must be a map" (refusal {:servers {"a" near}, :tls {:cert "c"}})))
       (is (re-find #"nowhere.pem of :tls cannot be read"
                    (refusal {:servers {"a" near}, :tls {:cert "nowhere.pem", :key "nowhere.key", :ca "nowhere.pem"}})))))))
