(ns quorate.cluster.table-test
  "The request table, on one real server."
  (:require [clojure.string :as str]
            [clojure.test :refer [are deftest is testing use-fixtures]]
            [quorate.cluster.http :as http]
            [quorate.cluster.nodes :as nodes]
            [quorate.cluster.process :as process])
  (:import (java.util Arrays Random)))

(set! *warn-on-reflection* true)

(def ^:dynamic *server* nil)

(use-fixtures :once
  (fn [tests]
    (nodes/with-folder
      (fn [folder]
        (let [ports    (process/free-ports 1)
              [server] (nodes/start (nodes/variables folder ports (first ports)))]
          (binding [*server* server]
            (tests)))))))

(defn- random-bytes ^bytes [n]
  (let [octets (byte-array n)]
    (.nextBytes (Random. 7) octets)
    octets))

(deftest a-value-comes-back-byte-for-byte
  (let [put (http/put *server* "/mykey" "mydata" :headers {"Content-Type" "application/x-www-form-urlencoded"})
        got (http/fetch *server* "/mykey")]
    (is (= [201 "created"] [(:status put) (:text put)]))
    (is (re-matches #"\"\d+\"" (str (:etag put))))
    (is (= [200 "mydata" (:etag put)] [(:status got) (:text got) (:etag got)]))
    (is (= [200 "" "6" (:etag put)] ((juxt :status :text :length :etag) (http/ask *server* "HEAD" "/mykey")))))
  (doseq [n [0 1 256 65536 1000000]]
    (let [octets (random-bytes n)]
      (is (= 201 (:status (http/put *server* "/octets" octets))))
      (is (Arrays/equals octets ^bytes (:bytes (http/fetch *server* "/octets")))))))

(deftest revisions-grow
  (let [answers (mapv #(http/put *server* "/r" (str %)) (range 5))]
    (is (every? :etag answers) (str answers))
    (is (apply < (map #(parse-long (str/replace (str (:etag %)) "\"" "")) answers)))))

(deftest a-missing-key-is-404
  (is (= 404 (:status (http/fetch *server* "/missing"))))
  (is (= 404 (:status (http/fetch *server* "/missing?consistency=local"))))
  (is (= 404 (:status (http/ask *server* "HEAD" "/missing"))))
  (is (= 404 (:status (http/delete *server* "/missing")))))

(deftest a-deleted-key-is-gone
  (http/put *server* "/d" "v")
  (is (= [204 ""] ((juxt :status :text) (http/delete *server* "/d"))))
  (is (= 404 (:status (http/fetch *server* "/d"))))
  (is (= 404 (:status (http/delete *server* "/d")))))

(deftest preconditions-hold-or-answer-412
  (http/delete *server* "/c")
  (let [put #(http/put *server* "/c" "v" :headers %)
        tag (:etag (put {"If-None-Match" "*"}))]
    (is (some? tag))
    (is (= 412 (:status (put {"If-None-Match" "*"}))))
    (let [next-tag (:etag (put {"If-Match" tag}))]
      (is (some? next-tag))
      (is (= 412 (:status (put {"If-Match" tag}))))
      (is (= 412 (:status (put {"If-None-Match" next-tag}))))
      (is (= 201 (:status (put {"If-None-Match" tag}))))
      (is (= 304 (:status (http/fetch *server* "/c" :headers {"If-None-Match" (:etag (http/fetch *server* "/c"))}))))
      (is (= 412 (:status (http/delete *server* "/c" :headers {"If-Match" tag}))))
      (is (= 204 (:status (http/delete *server* "/c" :headers {"If-Match" "*"}))))
      (is (= 412 (:status (http/delete *server* "/c" :headers {"If-Match" "*"})))))))

(deftest keys-have-slashes-and-any-letters
  (doseq [path ["/a/b/c" "/%C3%A9t%C3%A9" "/%E6%9D%B1%E4%BA%AC" "/%F0%9F%8D%8C" "/with%20space" "/100%25" "/%01" "/a+b" "/%3F"]]
    (is (= 201 (:status (http/put *server* path path))) path)
    (is (= path (:text (http/fetch *server* path))) path))
  (is (= 404 (:status (http/fetch *server* "/a/b"))) "a prefix is another key")
  (testing "a path is never normalised"
    (doseq [target ["/n//m" "//" "/n/../m" "/n/./m" "/n;x=1" "/n%2Fm" "/n/..%2F"]]
      (is (= 201 (http/raw-status *server* "PUT" target)) target)
      (is (= 200 (http/raw-status *server* "GET" target)) target))
    (is (= 404 (http/raw-status *server* "GET" "/m")))
    (is (= 200 (http/raw-status *server* "GET" "/n/m")) "an escaped slash is a slash")))

(deftest large-values
  (let [large (random-bytes (- (* 8 1024 1024) 1024))]
    (is (= 201 (:status (http/put *server* "/large" large))))
    (is (Arrays/equals large ^bytes (:bytes (http/fetch *server* "/large")))))
  (doseq [chunked? [false true]]
    ;; The server closes instead of reading the rest; a client may notice that before the answer.
    (is (contains? #{413 nil} (:status (http/put *server* "/larger" (byte-array (inc (* 8 1024 1024))) :chunked? chunked?)))))
  (is (re-find #"^HTTP/1.1 413 " (http/raw *server* (.getBytes (str "PUT /larger HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                                                                    "Content-Length: 99999999999\r\n\r\n")))))
  (is (= 404 (:status (http/fetch *server* "/larger")))))

(deftest bad-requests-are-refused
  (are [status method target] (= status (http/raw-status *server* method target))
    400 "GET"     "/"
    400 "PUT"     "/"
    400 "GET"     "/%zz"
    400 "GET"     "/%e"
    400 "GET"     "/%FF"
    400 "PUT"     "/\u00ff"
    400 "PUT"     "/%00"
    400 "GET"     "/../up"
    400 "PUT"     "/_mine"
    400 "GET"     "/%5Fmine"
    400 "GET"     "/k?consistancy=local"
    400 "PUT"     "/k?consistency=local"
    405 "POST"    "/k"
    405 "PATCH"   "/k"
    405 "OPTIONS" "/k"
    405 "BREW"    "/k"
    405 "PUT"     "/metrics"
    405 "DELETE"  "/_cluster")
  (is (= "GET, HEAD, PUT, DELETE" (:allow (http/ask *server* "POST" "/k" :body ""))))
  (is (= 414 (http/raw-status *server* "GET" (str "/" (str/join (repeat 20000 "k"))))))
  (is (re-find #"^HTTP/1.1 400" (http/raw *server* (.getBytes "rubbish\r\n\r\n"))))
  (is (http/ready? *server*) "and it serves on"))

(deftest the-servers-own-pages
  (http/put *server* "/seen" "v")
  (is (= [200 "ok\n"] ((juxt :status :text) (http/fetch *server* "/_health"))))
  (let [cluster (http/fetch *server* "/_cluster")]
    (is (= [200 "application/json"] ((juxt :status :type) cluster)))
    (is (str/includes? (:text cluster) (str "\"name\":\"localhost:" (:port *server*) "\"")))
    (is (= (:port *server*) (nodes/leader-port *server*)) "a single node leads itself"))
  (let [metrics (:text (http/fetch *server* "/metrics"))]
    (is (re-find #"(?m)^quorate_http_requests_total\{method=\"PUT\",status=\"201\"\} [1-9]" metrics))
    (is (every? #(re-matches #"#.*|[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^}]*\})? -?[0-9.eE+-]+|" %) (str/split-lines metrics)))))
