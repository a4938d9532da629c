(ns quorate.load.report
  "What a person sees: a line of progress while it runs, the summary at its end."
  (:require [clojure.string :as str]
            [quorate.ring.json :as json])
  (:import (java.io IOException)
           (java.lang ProcessBuilder$Redirect)
           (java.util List Locale)
           (java.util.concurrent TimeUnit)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private bar-length 24)
(def ^:private named-reasons "Kinds of errors that are shown with an example." 10)

(defn- fmt ^String [pattern & values]
  (String/format Locale/ROOT pattern (to-array values)))

(defn terminal?
  "Whether the standard error is a terminal. The JVM itself only tells whether input and output both are, and the input is often a file."
  []
  (try
    (let [command ["test" "-t" "2"]
          process (-> (ProcessBuilder. ^List command)
                      (.redirectError ProcessBuilder$Redirect/INHERIT)
                      (.start))]
      (and (.waitFor process 2 TimeUnit/SECONDS)
           (zero? (.exitValue process))))
    (catch IOException _ (some? (System/console)))))

;; ---------------------------------------------------------------------------------------------------------- progress

(defn screen
  "Where progress and messages go: the standard error. `:say` takes a line; `:drawn` counts the characters of the line of progress."
  []
  {:terminal? (terminal?), :drawn (atom 0), :say #(.println System/err (str %))})

(defn- clear! [drawn]
  (when (pos? (long @drawn))
    (.print System/err (str "\r" (str/join (repeat @drawn " ")) "\r"))
    (.flush System/err)
    (reset! drawn 0)))

(defn say!
  "A message on a line of its own."
  [{:keys [drawn say]} message]
  (locking drawn
    (clear! drawn)
    (say message)))

(defn draw!
  "A line of progress: in the place of the last one on a terminal."
  [{:keys [terminal? drawn say]} ^String line]
  (locking drawn
    (if terminal?
      (do (clear! drawn)
          (.print System/err line)
          (.flush System/err)
          (reset! drawn (count line)))
      (say line))))

(defn finish!
  "Takes the line of progress away."
  [{:keys [drawn]}]
  (locking drawn
    (clear! drawn)))

(defn- bar [share]
  (let [full (long (* (double share) (long bar-length)))]
    (str "[" (str/join (repeat full "#")) (str/join (repeat (- (long bar-length) full) ".")) "] " (fmt "%3.0f%%" (* 100.0 (double share))) "  ")))

(defn progress-line
  "Progress: `point` of `tally/look!`, operations so far, the share of all that is done or nil, errors and invalid lines so far, how late
  the next operation is."
  [{:keys [at operations seconds p99-ms]} {:keys [total share errors invalid-lines behind-ns]}]
  (str (when share (bar share))
       (fmt "%.0f s  %,d operations  %,.0f/s  p99 %.2f ms" at total (/ (double operations) (max 1e-9 (double seconds))) p99-ms)
       (when (pos? (long errors)) (fmt "  %,d errors" errors))
       (when (pos? (long invalid-lines)) (fmt "  %,d invalid lines" invalid-lines))
       (when (< 1000000000 (long behind-ns)) (fmt "  behind the rate by %.1f s" (/ (double behind-ns) 1e9)))))

;; ----------------------------------------------------------------------------------------------------------- summary

(defn- latency-row [label {:keys [mean-us p50-us p90-us p99-us p999-us max-us] n :count}]
  (when (pos? (long n))
    (str (fmt "%-7s %,12d" label n)
         (str/join (map #(fmt " %10.3f" (/ (double %) 1000.0)) [mean-us p50-us p90-us p99-us p999-us max-us])) "\n")))

(defn- kinds [counts]
  (str/join ", " (for [[kind n] (sort-by (comp - val) counts)] (fmt "%s %,d" kind n))))

(defn- error-lines [{:keys [errors reasons]}]
  (if (empty? errors)
    "Errors: none.\n"
    (str (fmt "Errors: %,d (%s).\n" (reduce + (vals errors)) (kinds errors))
         (str/join (for [kind (take named-reasons (keys errors))]
                     (str "  " kind ", for example " (get reasons kind) "\n"))))))

(defn text
  "The summary for a person."
  [{:keys [seconds operations ops-per-s writes reads absent retried answers invalid-lines given-up under-way why] :as summary}]
  (str (fmt "%,d operations in %.2f s: %,.1f a second.\n" operations seconds ops-per-s)
       (when (pos? (long operations))
         (str "latency, ms    count       mean        p50        p90        p99      p99.9        max\n"
              (latency-row "writes" writes)
              (latency-row "reads" reads)))
       (when (pos? (long absent)) (fmt "Reads of keys without a value: %,d.\n" absent))
       (when (next answers) (str "Answered by: " (kinds answers) ".\n"))
       (when (seq retried) (fmt "Tried again: %,d times (%s).\n" (reduce + (vals retried)) (kinds retried)))
       (error-lines summary)
       (when (pos? (long invalid-lines)) (fmt "Invalid lines: %,d.\n" invalid-lines))
       (when (pos? (long given-up))
         (fmt "The rate could not be kept: %,d operations were due and not sent; the latencies lack them.\n" given-up))
       (when (pos? (long under-way)) (fmt "Not answered yet: %,d.\n" under-way))
       (when why (str why "\n"))))

(defn json-text
  "The summary as one line of JSON."
  [summary]
  (str (json/write (into (sorted-map) (remove (comp nil? val)) summary)) "\n"))
