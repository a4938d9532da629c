(ns quorate.load-stub-test
  "The loader against servers that fail, stall, refuse and break off on purpose."
  (:require [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :refer [eventually]]
            [quorate.load :as load]
            [quorate.load-stub :as stub :refer [with-server]]
            [quorate.load.workers :as workers])
  (:import (java.io InputStream)
           (java.util Arrays)
           (java.util.concurrent CountDownLatch TimeUnit)
           (java.util.concurrent.atomic AtomicInteger AtomicLong)))

(set! *warn-on-reflection* true)

(defn- numbered [n]
  (for [i (range n)] [(str "k" i) (str "value " i)]))

(deftest lines-are-loaded
  (let [stored (atom {})]
    (with-server (stub/storing stored)
      (fn [node]
        (let [summary (stub/run-load (stub/lines (numbered 500)) "-c" "8" node)]
          (is (= 500 (:operations summary) (:count (:writes summary))))
          (is (= {node 500} (:answers summary)))
          (is (= 0 (load/exit-status summary)))
          (is (= (into {} (for [[k v] (numbered 500)] [(str "/" k) [v]])) @stored)))))))

(deftest lines-of-one-key-take-effect-in-their-order
  (let [stored (atom {})
        store  (stub/storing stored)]
    (with-server (fn [request]
                   (Thread/sleep (long (rand-int 4)))
                   (store request))
      (fn [node]
        (stub/run-load (stub/lines (for [i (range 300)] [(str "k" (rem (long i) 3)) i])) "-c" "16" node)
        (doseq [k (range 3)]
          (is (= (map str (range k 300 3)) (@stored (str "/k" k)))))))))

(deftest an-invalid-line-is-named-and-counted
  (let [stored (atom {})
        store  (stub/storing stored)
        input  "a 1\nalone\n empty\n_own 2\nb 3\n"]
    (with-server (fn [{:keys [path] :as request}]
                   (if (= "/_own" path) {:status 400, :text "Keys that start with _ are reserved.\n"} (store request)))
      (fn [node]
        (let [summary (stub/run-load input node)]
          (is (= [2 3 {} 1] ((juxt :operations :invalid-lines :errors load/exit-status) summary)))
          (is (= ["Line 2 has no space." "Line 3 has an empty key."] (filter #(re-find #"Line [23]" %) (:said summary))))
          (is (some #(re-matches #"Line 4 is refused: .*reserved\." %) (:said summary)))
          (is (= {"/a" ["1"], "/b" ["3"]} @stored)))
        (testing "--strict stops there"
          (reset! stored {})
          (let [summary (stub/run-load input "--strict" "-c" "1" node)]
            (is (= [1 1 1] ((juxt :operations :invalid-lines load/exit-status) summary)))
            (is (= {"/a" ["1"]} @stored))))
        (testing "and what comes before it is written, whatever is under way"
          (reset! stored {})
          (stub/run-load (str (stub/lines (numbered 200)) "alone\nafter 1\n") "--strict" "-c" "16" node)
          (is (= (set (for [[k _] (numbered 200)] (str "/" k))) (set (keys @stored)))))))))

(deftest a-write-whose-outcome-is-unknown-is-sent-again-and-counted-once
  (let [stored  (atom {})
        store   (stub/storing stored)
        number  (AtomicInteger.)]
    (with-server (fn [{:keys [method] :as request}]
                   (if (= "PUT" method)
                     ;; Two in a row break off: the second one over a fresh connection. One of them had its effect.
                     (case (rem (.incrementAndGet number) 7)
                       0 {:break? true}
                       1 (do (store request) {:break? true})
                       (store request))
                     (store request)))
      (fn [node]
        (let [summary (stub/run-load (stub/lines (numbered 400)) "-c" "4" node)]
          (is (= [400 {} 0] ((juxt :operations :errors load/exit-status) summary)))
          (is (< 400 (.get number)))
          (is (pos? (long (get (:retried summary) "connection broken" 0))))
          (is (= 400 (count @stored)))
          (is (every? (fn [[path values]] (= #{(str "value " (subs path 2))} (set values))) @stored)))))))

(deftest a-node-that-fails-is-left-out-until-it-is-well
  (let [ill?    (atom true)
        stored  (atom {})
        store   (stub/storing stored)
        asked   (AtomicInteger.)
        release (promise)
        input   (proxy [InputStream] []
                  (read ([] -1)
                    ([octets] (.read ^InputStream this octets 0 (alength ^bytes octets)))
                    ([octets offset _length]
                     (if (realized? release)
                       -1
                       (let [line (.getBytes (str "k" (rand-int 1000000) " v\n"))]
                         (System/arraycopy line 0 octets (int offset) (alength line))
                         (alength line))))))]
    (with-server (fn [request]
                   (if @ill?
                     (do (when (= "PUT" (:method request)) (.incrementAndGet asked))
                         {:status 503, :text "This server is starting.\n"})
                     (store request)))
      (fn [ill]
        (with-server (stub/storing (atom {}))
          (fn [well]
            (let [running (future (stub/run-load input "-c" "2" ill well))]
              (is (eventually #(pos? (.get asked))))
              (Thread/sleep 500)
              (is (<= (.get asked) 2) "it is not asked again and again")
              (is (empty? @stored))
              (reset! ill? false)
              (is (eventually #(< 10 (count @stored))) "it is used again")
              (deliver release true)
              (let [summary (deref running 20000 nil)]
                (is (= [{} 0] ((juxt :errors load/exit-status) summary)))
                (is (pos? (long (get (:retried summary) "status 503" 0))))
                (is (= #{ill well} (set (keys (:answers summary)))))))))))))

(deftest what-cannot-be-done-is-an-error-of-its-kind
  (with-server (fn [{:keys [method]}] (if (= "PUT" method) {:status 503, :text "No leader.\n"} {:status 200}))
    (fn [node]
      (let [summary (stub/run-load "a 1\nb 2\n" "--retry-ms" "300" node)]
        (is (= [0 {"status 503" 2} 1] ((juxt :operations :errors load/exit-status) summary)))
        (is (= {"status 503" (str node ": No leader.")} (:reasons summary))))))
  (testing "silence is a timeout, a port without a server a refused connection"
    (let [over (CountDownLatch. 1)]
      (with-server (fn [_] (.await over 20 TimeUnit/SECONDS) {:status 200})
        (fn [node]
          (is (= {"timeout" 1} (:errors (stub/run-load "a 1\n" "--retry-ms" "0" "--timeout-ms" "150" node))))
          (.countDown over))))
    (is (= {"connection refused" 1} (:errors (stub/run-load "a 1\n" "--retry-ms" "0" "127.0.0.1:1"))))))

(deftest it-stops-when-nothing-can-be-done-any-more
  (let [summary (stub/run-load (stub/lines (numbered 10000)) "--retry-ms" "0" "-c" "4" "127.0.0.1:1")]
    (is (<= 64 (long (get-in summary [:errors "connection refused"])) 80))
    (is (str/includes? (str (:why summary)) "64 operations in a row"))
    (is (= 1 (load/exit-status summary)))))

(deftest reads-of-absent-keys-are-answers
  (let [queries (atom #{})
        stored  (atom {})
        store   (stub/storing stored)]
    (with-server (fn [{:keys [method query] :as request}]
                   (when (= "GET" method) (swap! queries conj query))
                   (store request))
      (fn [node]
        (let [{:keys [reads writes absent] :as summary}
              (stub/run-load nil "--count" "300" "--mix" "1:0" "--read" "lease" "--keys" "10" node)]
          (is (= [300 0 300 0] [(:count reads) (:count writes) absent (load/exit-status summary)]))
          (is (= #{"consistency=lease"} (disj @queries nil))))))))

(deftest the-input-is-read-no-faster-than-it-is-answered
  (let [over  (CountDownLatch. 1)
        taken (AtomicLong.)
        ;; Lines of `size` bytes for ever.
        input (fn [size]
                (let [at (AtomicLong.)]
                  (proxy [InputStream] []
                    (read ([] -1)
                      ([octets] (.read ^InputStream this octets 0 (alength ^bytes octets)))
                      ([octets offset length]
                       (let [place (rem (.get at) (long size))
                             n     (min (long length) (- (long size) place))]
                         (Arrays/fill ^bytes octets (int offset) (int (+ (long offset) n)) (byte 97))
                         (when (zero? place)
                           (aset ^bytes octets (inc (int offset)) (byte 32))
                           (aset ^bytes octets (int offset) (byte (+ 97 (rem (quot (.get at) (long size)) 26)))))
                         (when (= (+ place n) (long size))
                           (aset ^bytes octets (int (+ (long offset) (dec n))) (byte 10)))
                         (.addAndGet at n)
                         (.addAndGet taken n)
                         (int n)))))))
        bytes-of (fn [size concurrency node]
                   (.set taken 0)
                   (let [running (load/begin (stub/options (atom []) (input size) "-c" (str concurrency) "--retry-ms" "0" node))]
                     (Thread/sleep 1500)
                     (workers/stop! (:run running) nil)
                     (.get taken)))]
    (with-server (fn [_] (.await over 60 TimeUnit/SECONDS) {:status 201})
      (fn [node]
        (is (<= 1 (long (bytes-of 1000 4 node)) (+ 65536 (* 5 1000))))
        (is (<= (* 32 1024 1024) (long (bytes-of 1048576 256 node)) (* 66 1024 1024)))
        (.countDown over)))))

;; --------------------------------------------------------------------------------------------------- an open loop

(defn- stalling
  "An `answer` that stands still once, for `stall-ms` after the `nth` write: nobody is answered meanwhile."
  [nth stall-ms]
  (let [number (AtomicInteger.)
        over   (CountDownLatch. 1)]
    (fn [{:keys [method]}]
      (let [n (if (= "PUT" method) (.incrementAndGet number) 0)]
        (cond (= n (long nth)) (do (Thread/sleep (long stall-ms))
                                   (.countDown over))
              (< (long nth) n) (.await over 20 TimeUnit/SECONDS))
        {:status 201}))))

(deftest a-stall-shows-in-full-at-a-rate
  (let [rate 200, stall-ms 2000]
    (with-server (stalling 200 stall-ms)
      (fn [node]
        (let [{:keys [writes] :as summary} (stub/run-load nil "--rate" (str rate) "--duration" "4" "-c" "8" node)]
          (is (= [800 0 {}] ((juxt :operations :given-up :errors) summary)) "the rate is held, through the stall and after it")
          (is (<= 1900000.0 (double (:max-us writes))))
          ;; Of 800 operations 400 were due during the stall, 200 of them a second or more before its end.
          (is (<= 1000000.0 (double (:p90-us writes))))
          (is (<= 1500000.0 (double (:p99-us writes)))))))))

(deftest a-closed-loop-sends-when-the-last-one-was-answered
  (with-server (stalling 200 1000)
    (fn [node]
      (let [{:keys [writes]} (stub/run-load nil "--count" "4000" "-c" "4" node)]
        (is (= 4000 (:count writes)))
        (is (<= 900000.0 (double (:max-us writes))))))))

(deftest a-rate-that-is-too-high-is-said-so
  (with-server (fn [_] (Thread/sleep 400) {:status 201})
    (fn [node]
      (let [{:keys [operations given-up] :as summary} (stub/run-load nil "--rate" "500" "--duration" "1" "-c" "2" node)]
        (is (= 500 (+ (long operations) (long given-up))))
        (is (< 400 (long given-up)))
        (is (= 1 (load/exit-status summary)))))))
