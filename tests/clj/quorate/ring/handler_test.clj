(ns quorate.ring.handler-test
  (:require [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [quorate.ring.handler :as handler]
            [quorate.ring.memory-store :refer [memory-store]]
            [quorate.ring.metrics :as metrics])
  (:import (java.io ByteArrayInputStream InputStream)
           (java.util.concurrent CompletableFuture CountDownLatch Executor ForkJoinPool)))

(def ^:private body-bytes-max (* 8 1024 1024))

(defn- server
  "A handler over an empty store, as a function from a request to its answer."
  [& {:as options}]
  (let [store   (memory-store)
        handle  (handler/handler (merge {:store-now          (constantly store)
                                         :members            #(CompletableFuture/completedFuture {:members [{:name "localhost:3000"}]})
                                         :report             (constantly {:name "localhost:3000" :raft-port 13000})
                                         :registry           (metrics/registry)
                                         :command-timeout-ms 200
                                         :body-bytes-max     body-bytes-max
                                         :body-ms            5000
                                         :executor           (ForkJoinPool/commonPool)}
                                        options))]
    {:store store
     :ask   (fn [request]
              (let [answer (promise)]
                (handle request #(deliver answer %) #(deliver answer {:raised %}))
                (deref answer 5000 {:timed-out true})))}))

(defn- stream ^InputStream [body]
  (ByteArrayInputStream. (if (string? body) (.getBytes ^String body "UTF-8") body)))

(defn- ask [{:keys [ask]} method target & {:keys [headers body] :or {headers {}}}]
  (let [[uri query] (str/split target #"\?" 2)]
    (ask {:request-method method :uri uri :query-string query :headers headers
          :body (some-> body stream)})))

(defn- body-text [{:keys [^bytes body]}] (when body (String. body "UTF-8")))
(defn- etag [answer] (get-in answer [:headers "ETag"]))

(deftest a-value-comes-back-as-it-was-put
  (let [server (server)
        put    (ask server :put "/mykey" :body "mydata" :headers {"content-type" "application/x-www-form-urlencoded"})
        got    (ask server :get "/mykey")]
    (is (= [201 "created"] [(:status put) (body-text put)]))
    (is (re-matches #"\"\d+\"" (etag put)))
    (is (= [200 "mydata" (etag put)] [(:status got) (body-text got) (etag got)]))
    (testing "every byte of it"
      (let [octets (byte-array (map unchecked-byte (range 256)))]
        (is (= 201 (:status (ask server :put "/octets" :body octets))))
        (is (= (seq octets) (seq (:body (ask server :get "/octets")))))
        (is (= "256" (get-in (ask server :head "/octets") [:headers "Content-Length"])))))
    (testing "an empty one too"
      (is (= 201 (:status (ask server :put "/empty"))))
      (is (= [200 ""] ((juxt :status body-text) (ask server :get "/empty")))))))

(deftest a-deleted-key-is-gone
  (let [server (server)]
    (is (= 404 (:status (ask server :delete "/k"))))
    (ask server :put "/k" :body "v")
    (is (= 204 (:status (ask server :delete "/k"))))
    (is (= 404 (:status (ask server :get "/k"))))))

(deftest keys-are-decoded-and-never-normalised
  (let [server (server)
        stored #(set (keys (:entries @(get-in server [:store :state]))))]
    (doseq [path ["/a/b" "/a//b" "//" "/a/../b" "/a;x=1" "/%C3%A9" "/100%25" "/a%2Fc" "/a+b" "/sp%20ace" "/%F0%9F%8D%8C"]]
      (is (= 201 (:status (ask server :put path :body path))) path)
      (is (= path (body-text (ask server :get path)))))
    (is (= #{"a/b" "a//b" "/" "a/../b" "a;x=1" "é" "100%" "a/c" "a+b" "sp ace" "🍌"} (stored)))
    (is (= "/%C3%A9" (body-text (ask server :get "/é"))) "raw UTF-8 is the same key as the escaped")))

(deftest bad-paths-and-parameters-are-refused
  (let [server (server)]
    (doseq [[method path status] [[:get "/" 400] [:put "/" 400] [:get "/%zz" 400] [:get "/%4" 400] [:get "/%" 400] [:get "/%ff" 400]
                                  [:get "/%C0%80" 400] [:get "/a\uFFFD" 400] [:get "/%EF%BF%BD" 404] [:get "*" 400]
                                  [:put "/_mine" 400] [:get "/%5Fmine" 400] [:get "/k?what" 400] [:put "/k?consistency=local" 400]
                                  [:get "/k?consistency=eventual" 400] [:get "/k?consistency=local" 404]
                                  [:post "/k" 405] [:options "/k" 405] [:put "/metrics" 405] [:delete "/_health" 405]]]
      (is (= status (:status (ask server method path))) (str method " " path)))
    (is (= "GET, HEAD, PUT, DELETE" (get-in (ask server :patch "/k") [:headers "Allow"])))))

(deftest preconditions-hold-or-answer-412
  (let [server  (server)
        put     (fn [headers] (ask server :put "/k" :body "v" :headers headers))
        delete  (fn [headers] (:status (ask server :delete "/k" :headers headers)))]
    (is (= 412 (:status (put {"if-match" "*"}))))
    (is (= 412 (:status (put {"if-match" "\"1\""}))))
    (let [first-tag  (etag (put {"if-none-match" "*"}))
          _          (is (= 412 (:status (put {"if-none-match" "*"}))))
          second-tag (etag (put {"if-match" first-tag}))]
      (is (some? second-tag))
      (is (= 412 (:status (put {"if-match" first-tag}))) "the revision has moved on")
      (is (= 412 (:status (put {"if-match" (str "W/" second-tag)}))) "a weak tag never matches")
      (is (= 412 (:status (put {"if-none-match" second-tag}))))
      (is (= 201 (:status (put {"if-none-match" first-tag}))))
      (let [tag (etag (put {"if-match" "*"}))]
        (is (= 304 (:status (ask server :get "/k" :headers {"if-none-match" tag}))))
        (is (= 200 (:status (ask server :get "/k" :headers {"if-none-match" first-tag}))))
        (is (= 412 (:status (ask server :get "/k" :headers {"if-match" first-tag}))))
        (is (= 412 (delete {"if-match" first-tag})))
        (is (= 204 (delete {"if-match" tag})))
        (is (= 412 (delete {"if-match" "*"})))))
    (is (= 400 (:status (put {"if-match" "1"}))) "not an ETag")
    (is (= 400 (:status (put {"if-match" "*" "if-none-match" "*"}))))))

(defn- endless-stream
  "A body without an end, that counts what is taken from it."
  [taken]
  (proxy [InputStream] []
    (read
      ([] (swap! taken inc) 0)
      ([octets] (swap! taken + (alength ^bytes octets)) (alength ^bytes octets))
      ([_octets _offset length] (swap! taken + length) length))))

(deftest a-body-beyond-the-limit-is-not-read
  (let [{:keys [ask] :as server} (server)
        limit body-bytes-max
        taken (atom 0)]
    (is (= 201 (:status (ask {:request-method :put :uri "/k" :headers {} :body (stream (byte-array limit))}))))
    (is (= 413 (:status (ask {:request-method :put :uri "/k" :headers {} :body (stream (byte-array (inc limit)))}))))
    (is (= 413 (:status (ask {:request-method :put :uri "/k" :headers {} :body (endless-stream taken)}))))
    (is (<= @taken (+ limit 65536)))
    (reset! taken 0)
    (is (= 413 (:status (ask {:request-method :put :uri "/k" :headers {"content-length" (str (inc limit))} :body (endless-stream taken)}))))
    (is (zero? @taken) "a stated length is enough to refuse")
    (testing "the budget for bodies is given back every time"
      (dotimes [_ 200]
        (ask {:request-method :put :uri "/k" :headers {} :body (endless-stream taken)}))
      (is (= 201 (:status (quorate.ring.handler-test/ask server :put "/k" :body "v")))))))

(deftest a-body-is-held-as-it-comes-and-not-as-it-was-announced
  (let [{:keys [ask] :as server} (server :body-ms 3000)
        slow  (fn [body] {:request-method :put, :uri "/k", :headers {"content-length" (str body-bytes-max)}, :read-body body})
        never (fn [taken?] (taken? 1) (CompletableFuture.))
        ;; Many more than the budget would hold, if it believed them.
        slows (doall (repeatedly 100 #(future (ask (slow never)))))]
    (is (= 201 (:status (quorate.ring.handler-test/ask server :put "/k" :body "v"))))
    (is (= #{408} (set (map (comp :status deref) slows))))
    (testing "what has come has its room"
      (let [here (CountDownLatch. 16)
            full (fn [taken?]
                   (taken? (dec (long body-bytes-max)))
                   (.countDown here)
                   (CompletableFuture.))
            held (doall (repeatedly 16 #(future (ask (slow full)))))]
        (.await here)
        (is (= 503 (:status (ask (slow (fn [taken?] (taken? 1000000) (CompletableFuture/completedFuture (byte-array 1))))))))
        (run! deref held)
        (is (= 201 (:status (quorate.ring.handler-test/ask server :put "/k" :body "v"))))))
    (is (= 400 (:status (ask (slow (fn [_] (CompletableFuture/failedFuture (java.io.EOFException.))))))))))

(deftest without-a-quorum-the-answer-is-503-in-time
  (let [server (server)
        fault  (get-in server [:store :fault])
        began  (System/nanoTime)]
    (reset! fault (fn [_ consistency] (when-not (= :local consistency) (CompletableFuture.))))
    (doseq [answer [(ask server :put "/k" :body "v") (ask server :get "/k") (ask server :delete "/k") (ask server :get "/_health")]]
      (is (= 503 (:status answer)))
      (is (= "1" (get-in answer [:headers "Retry-After"])))
      (is (str/ends-with? (body-text answer) ".\n")))
    (is (< (- (System/nanoTime) began) 4e9))
    (is (= 404 (:status (ask server :get "/k?consistency=local"))) "a local read asks nobody")))

(deftest a-request-alone-needs-no-other-thread
  (let [handed (atom 0)
        held   (atom [])
        server (server :executor (reify Executor (execute [_ task] (swap! handed inc) (.run ^Runnable task))))]
    (reset! (get-in server [:store :fault]) (fn [_ _] (let [it (CompletableFuture.)] (swap! held conj it) it)))
    (let [begin (fn []
                  (let [before (count @held)
                        answer (future (ask server :get "/k"))]
                    (is (loop [tries 5000]
                          (or (< before (count @held))
                              (and (pos? tries) (do (Thread/sleep 1) (recur (dec tries)))))))
                    [answer (peek @held)]))
          finish (fn [[answer it]]
                   (.complete ^CompletableFuture it nil)
                   (:status @answer))]
      (is (= 404 (finish (begin))))
      (is (= 0 @handed))
      (let [[one two] [(begin) (begin)]]
        (is (= 404 (finish two)))
        (is (= 1 @handed) "another one was under way when it came")
        (is (= 404 (finish one)))))))

(deftest failures-of-the-store-become-answers
  (let [server (server)
        fault  (get-in server [:store :fault])]
    (doseq [[error status] {:raft/unavailable 503, :raft/overloaded 503, :raft/shutdown 503, :raft/too-large 413, :raft/command-timeout 503}
            throw? [true false]]
      (reset! fault (fn [_ _]
                      (let [failure (ex-info "A sentence." {:error error})]
                        (if throw? (throw failure) (CompletableFuture/failedFuture failure)))))
      (is (= status (:status (ask server :put "/k" :body "v"))) (str error)))))

(deftest the-servers-own-pages
  (let [server (server)]
    (ask server :put "/k" :body "v")
    (ask server :get "/absent")
    (is (= 200 (:status (ask server :get "/_health"))))
    (is (= "{\"members\":[{\"name\":\"localhost:3000\"}]}\n" (body-text (ask server :get "/_cluster"))))
    (is (= "{:name \"localhost:3000\", :raft-port 13000}" (body-text (ask server :get "/_node"))))
    (let [page (body-text (ask server :get "/metrics"))]
      (is (str/includes? page "quorate_http_requests_total{method=\"PUT\",status=\"201\"} 1\n"))
      (is (str/includes? page "quorate_http_requests_total{method=\"GET\",status=\"404\"} 1\n"))
      (is (str/includes? page "quorate_http_request_seconds_count{method=\"PUT\"} 1\n"))
      (is (str/includes? page "quorate_test 1\n") "the node's own metrics are on the same page"))))

(deftest a-server-that-starts-says-so
  (let [server (server :store-now (constantly nil))]
    (is (= 503 (:status (ask server :get "/k"))))
    (is (= 503 (:status (ask server :get "/_health"))))
    (is (= 200 (:status (ask server :get "/_node"))) "others can already learn its raft port")))
