(ns quorate.ring.handler
  "The ring handler: the request table, against any `quorate.ring.store/Store`.

  It is asynchronous: a request that waits for the cluster holds no thread, so that health and status are answered while
  a cluster without a quorum lets everything else wait for its timeout."
  (:require [clojure.string :as str]
            [clojure.tools.logging :as log]
            [quorate.ring.metrics :as metrics]
            [quorate.ring.request :as request]
            [quorate.ring.response :as response]
            [quorate.ring.store :as store])
  (:import (java.nio.charset StandardCharsets)
           (java.util.concurrent CompletableFuture Executor Semaphore TimeUnit)
           (java.util.concurrent.atomic AtomicBoolean AtomicInteger)
           (java.util.function BiConsumer Function)))

(set! *warn-on-reflection* true)

(def body-budget-bytes
  "Bytes of PUT bodies that one server holds at once."
  (* 128 1024 1024))

(def ^:private grace-ms
  "The store answers within the command timeout; a request gives up on a store that does not so much later."
  500)

(defn- then
  "The future of `(f value)`."
  ^CompletableFuture [^CompletableFuture future f]
  (.thenApply future (reify Function (apply [_ value] (f value)))))

(defn- then-compose
  "The future that `(f value)` returns."
  ^CompletableFuture [^CompletableFuture future f]
  (.thenCompose future (reify Function (apply [_ value] (f value)))))

(defn- within
  "`answer`, a response or a future of one, as a future that fails when the store does not answer in time."
  ^CompletableFuture [{:keys [command-timeout-ms]} answer]
  (if (instance? CompletableFuture answer)
    (.orTimeout (.copy ^CompletableFuture answer) (+ (long command-timeout-ms) (long grace-ms)) TimeUnit/MILLISECONDS)
    (CompletableFuture/completedFuture answer)))

;; --- keys

(defn- get-key [{:keys [store]} k {:keys [headers query-string]}]
  (let [consistency (request/consistency query-string)
        [kind x]    (request/precondition headers)]
    (then (store/fetch store (request/key-bytes k) consistency)
          (fn [{:keys [value revision] :as found}]
            (let [matches? (and found (or (= :any x) (contains? x revision)))]
              (cond (and (= :match kind) (not matches?)) (response/sentence 412 "If-Match does not hold.")
                    (nil? found)                         (response/sentence 404 "There is no such key.")
                    (and (= :none-match kind) matches?)  (response/header (response/empty-body 304) "ETag" (request/etag revision))
                    :else (-> (response/answer 200 "application/octet-stream" value)
                              (response/header "ETag" (request/etag revision)))))))))

(defn- one-revision [header revisions]
  (when (next revisions)
    (request/refuse 400 header " can name only one ETag here."))
  (first revisions))

(defn- put-plan
  "The transaction of a PUT, and which of its outcomes means that it was written; nil when it cannot be."
  [k write [kind x]]
  (cond
    (nil? kind)                        {:txn {:if [] :then [write] :else []} :written? true}
    (= [:match :any] [kind x])         {:txn {:if [[:exists k]] :then [write] :else []} :written? true}
    (= [:none-match :any] [kind x])    {:txn {:if [[:absent k]] :then [write] :else []} :written? true}
    (and (= :match kind) (empty? x))   nil
    (= :match kind)                    {:txn      {:if [[:mod-revision k (one-revision "If-Match" x)]] :then [write] :else []}
                                        :written? true}
    (empty? x)                         {:txn {:if [] :then [write] :else []} :written? true}
    :else                              {:txn      {:if [[:mod-revision k (one-revision "If-None-Match" x)]] :then [] :else [write]}
                                        :written? false}))

(defn- put-value [{:keys [store]} k condition value]
  (let [k (request/key-bytes k)]
    (if-let [{:keys [txn written?]} (put-plan k [:put k value] condition)]
      (then (store/transact store txn)
            (fn [{:keys [succeeded? revision]}]
              (if (= written? (boolean succeeded?))
                (response/header (response/text 201 "created") "ETag" (request/etag revision))
                (response/sentence 412 "The precondition does not hold."))))
      (response/sentence 412 "If-Match does not hold."))))

(defn- room
  "A share of the budget for bodies, which grows with what has come, not with what was announced: `:taken?` and `:give-back`, and
  `:refused?`, whether there was no room."
  [^Semaphore budget]
  (let [mine    (AtomicInteger.)
        refused (AtomicBoolean.)]
    {:taken?    (fn [n]
                  (if (.tryAcquire budget (int n))
                    (do (.addAndGet mine (int n)) true)
                    (do (.set refused true) false)))
     :refused?  #(.get refused)
     :give-back #(.release budget (.getAndSet mine 0))}))

(defn- put-key
  "Takes the body's size from the budget as it is read, and gives it back when the request is done."
  [{:keys [body-budget body-bytes-max body-ms] :as context} k {:keys [headers query-string] :as request}]
  (request/no-query query-string)
  (request/check-length headers body-bytes-max)
  (let [condition (request/precondition headers)
        {:keys [taken? refused? give-back]} (room body-budget)
        put       (fn [octets]
                    (if (refused?)
                      (response/unavailable "This server is busy with too many large values.")
                      (put-value context k condition octets)))]
    (-> (try (request/body request body-bytes-max body-ms taken?)
             (catch Throwable thrown (CompletableFuture/failedFuture thrown)))
        (then-compose #(within context (put %)))
        (.whenComplete (reify BiConsumer (accept [_ _ _] (give-back)))))))

(defn- delete-key [{:keys [store]} k {:keys [headers query-string]}]
  (request/no-query query-string)
  (let [k        (request/key-bytes k)
        [kind x] (request/precondition headers)
        guard    (cond (= :none-match kind)             (request/refuse 400 "DELETE takes If-Match only.")
                       (contains? #{nil :any} x)        [:exists k]
                       (seq x)                          [:mod-revision k (one-revision "If-Match" x)])]
    (if (nil? guard)
      (response/sentence 412 "If-Match does not hold.")
      (then (store/transact store {:if [guard] :then [[:delete k]] :else []})
            (fn [{:keys [succeeded?]}]
              (cond succeeded? (response/empty-body 204)
                    kind       (response/sentence 412 "If-Match does not hold.")
                    :else      (response/sentence 404 "There is no such key.")))))))

;; --- the server's own pages

(defn- health
  "A linearizable read: it succeeds when a quorum confirms a leader, and this node has caught up with it."
  [{:keys [store]} _]
  (then (store/fetch store (request/key-bytes "_health") :linearizable)
        (constantly (response/text 200 "ok\n"))))

(defn- cluster [{:keys [members]} _]
  (then (members) #(response/json 200 %)))

(defn- own-report [{:keys [report]} _]
  (response/answer 200 "application/edn" (.getBytes (pr-str (report)) StandardCharsets/UTF_8)))

(defn- metrics-page [{:keys [store registry]} _]
  (let [page (str (metrics/exposition registry) (some-> store store/metrics))]
    (response/answer 200 metrics/content-type (.getBytes page StandardCharsets/UTF_8))))

(def ^:private pages
  "Path without its slash → handler, and whether it needs the store to be open."
  {"_health"  {:page health :store? true}
   "_cluster" {:page cluster :store? true}
   "_node"    {:page own-report}
   "metrics"  {:page metrics-page}})

;; --- routing

(defn- in-time
  "The answer, [[within]] the time when it is a future."
  [context answer]
  (if (instance? CompletableFuture answer) (within context answer) answer))

(def ^:private starting "This server is starting.")

(defn- serve-page [context {:keys [page store?]} {:keys [request-method] :as request}]
  (cond (not (contains? #{:get :head} request-method)) (response/not-allowed ["GET" "HEAD"])
        (and store? (nil? (:store context)))           (response/unavailable starting)
        :else                                          (in-time context (page context request))))

(defn- serve-key [context k {:keys [request-method] :as request}]
  (let [verb (case request-method
               (:get :head) get-key
               :put         put-key
               :delete      delete-key
               nil)]
    (cond (nil? verb)             (response/not-allowed ["GET" "HEAD" "PUT" "DELETE"])
          (str/starts-with? k "_") (response/sentence 400 "Keys that start with _ are reserved.")
          (= "" k)                (response/sentence 400 "The path names no key; write it like /mykey.")
          (nil? (:store context)) (response/unavailable starting)
          ;; What a PUT waits for first is the client.
          (= put-key verb)        (put-key context k request)
          :else                   (in-time context (verb context k request)))))

(defn- route
  "A response, or a future of one."
  [context {:keys [uri] :as request}]
  (let [k (request/path-key uri)]
    (if-let [page (pages k)]
      (serve-page context page request)
      (serve-key context k request))))

(defn- answer-later
  "Calls `finish` with the answer: by a thread of `executor`, or, for a request that is alone, by the one that completes `future`. Nothing
  in it waits for anybody, so that only the work of many answers at once needs other threads, and each costs a hand-over."
  [^CompletableFuture future ^Executor executor alone? finish]
  (let [then (reify BiConsumer
               (accept [_ answer thrown]
                 (finish (if thrown (response/failure thrown) answer))))]
    (if alone?
      (.whenComplete future then)
      (.whenCompleteAsync future then executor))))

(defn- send-answer
  "Writes the response. A client that is gone is no failure of this server."
  [answer respond raise]
  (try (respond answer)
       (catch Throwable thrown
         (log/debug "An answer could not be delivered:" (str thrown))
         (raise thrown))))

(defn handler
  "The asynchronous ring handler. Takes a map of

    :store-now           a function of no arguments: the store, or nil while it is not open yet
    :members             a function: a CompletableFuture of what `/_cluster` shows
    :report              a function: what `/_node` tells other servers, EDN
    :registry            counters of `quorate.ring.metrics`
    :command-timeout-ms  how long a request may wait for the store
    :body-bytes-max      largest body of a PUT, in bytes
    :body-ms             how long a client may take to send it
    :executor            begins to write the answers that had to wait"
  [{:keys [store-now registry executor] :as options}]
  (let [budget (Semaphore. (int body-budget-bytes))]
    (fn [{:keys [request-method] :as request} respond raise]
      (let [began   (metrics/began! registry)
            context (assoc options :store (store-now) :body-budget budget)
            finish  (fn [answer]
                      (metrics/ended! registry request-method (:status answer) began)
                      (send-answer answer respond raise))
            answer  (try (route context request)
                         (catch Throwable thrown (response/failure thrown)))]
        (if (instance? CompletableFuture answer)
          (answer-later answer executor (metrics/alone? registry) finish)
          (finish answer))))))
