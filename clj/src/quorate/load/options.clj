(ns quorate.load.options
  "The command line of `quorate.load`. Pure: [[parse]] returns what to do, or one sentence that says what is wrong."
  (:require [clojure.string :as str]
            [clojure.tools.cli :as cli])
  (:import (java.net URI URISyntaxException)))

(set! *warn-on-reflection* true)

(def default-node "Where load goes when no node is named." "localhost:3000")

(def ^:private value-bytes-max
  "The largest value that a ring server takes by default, less what framing needs."
  (- (* 8 1024 1024) 1024))

(defn- whole
  "The text as a whole number, digits alone; nil when it is none."
  [text]
  (when (re-matches #"[0-9]{1,12}" text) (parse-long text)))

(defn- decimal
  "The text as a positive number; nil when it is none."
  [text]
  (when (re-matches #"[0-9]{1,9}(\.[0-9]{1,6})?" text) (parse-double text)))

(defn- between [low high]
  [#(and (number? %) (<= (double low) (double %) (double high))) (str "it must be a number from " low " to " high)])

(defn- mix
  "`reads:writes` as the share of reads, 0 to 1; nil when it is not that."
  [text]
  (when-let [[_ reads writes] (re-matches #"([0-9]{1,9}):([0-9]{1,9})" text)]
    (let [reads (double (parse-long reads)), writes (double (parse-long writes))]
      (when (pos? (+ reads writes))
        (/ reads (+ reads writes))))))

(defn- one-of [& names]
  [:parse-fn #((set names) %)
   :validate [some? (str "it must be " (str/join ", " (butlast names)) " or " (last names))]])

(defn- number-option [parse low high]
  [:parse-fn parse :validate (between low high)])

(def ^:private specification
  [(into ["-c" "--concurrency N" "Connections, with one operation each under way" :default 32] (number-option whole 1 4096))
   (into ["-r" "--rate N" "Operations a second, sent at their times whether earlier ones are answered or not"] (number-option decimal 0.01 10000000))
   (into ["-d" "--duration S" "Generate load for so many seconds"] (number-option decimal 0.1 100000000))
   (into ["-n" "--count N" "Generate so many operations"] (number-option whole 1 999999999999))
   ["-m" "--mix R:W" "Reads to writes of generated load" :default 0.0 :default-desc "0:1"
    :parse-fn mix :validate [some? "it must be like 90:10"]]
   (into ["-k" "--keys N" "Keys of generated load: load-0 to load-(N-1)" :default 10000] (number-option whole 1 1000000000))
   (into [nil "--distribution D" "How generated load chooses keys: uniform, zipf (exponent 0.99) or sequential" :default "uniform"]
         (one-of "uniform" "zipf" "sequential"))
   (into [nil "--value-size BYTES" "Size of generated values" :default 128] (number-option whole 0 value-bytes-max))
   (into [nil "--read HOW" "Consistency of reads: linearizable, lease or local" :default "linearizable"]
         (one-of "linearizable" "lease" "local"))
   (into [nil "--timeout-ms N" "How long one node has for an answer" :default 5000] (number-option whole 1 600000))
   (into [nil "--retry-ms N" "How long an operation is tried again, on all nodes, before it counts as an error" :default 30000]
         (number-option whole 0 3600000))
   [nil "--strict" "Stop at the first invalid line"]
   [nil "--plot FILE.svg" "Draw rate and latency over time" :parse-fn identity
    :validate [#(str/ends-with? % ".svg") "it must be the name of a file that ends in .svg"]]
   [nil "--json" "Print the summary as one JSON object"]
   ["-h" "--help" "Show this"]])

(def ^:private shapes-generated-load [:mix :keys :distribution :value-size])

(defn help
  "The text of --help."
  [summary]
  (str "Usage: quorate-load [OPTIONS] [NODE...] < lines
       quorate-load --duration S [OPTIONS] [NODE...]

Loads ring servers. A NODE is a URL or HOST:PORT; " default-node " when none is named.
Without --duration and --count it reads lines `key value` from the standard input, split at the first space, and writes
each; lines of one key take effect in their order. With one of them it generates load.

" summary "

While it runs it tells rate and p99 latency of the last moment on the standard error: on one line that is drawn anew on a terminal,
line after line elsewhere. The summary goes to the standard output.

A node that does not answer is left out until it does, and what it was asked is asked of another. A write whose outcome is not known
is sent again, because a PUT of the same value has no further effect; where others write the same keys, it can undo what they wrote
in between. Each operation counts once.

With --rate, latency counts from the time at which an operation was due, so that a stall of the servers shows in full; what is due
for 10 s and could not be sent is given up and counted. Without it, each connection sends when its last operation was answered.

Exit status: 0 all well, 1 errors or invalid lines, 2 bad usage, 130 after ^C (which prints the summary so far)."))

;; ------------------------------------------------------------------------------------------------------------- nodes

(defn- node-uri ^URI [text]
  (try (URI. (if (str/includes? text "://") text (str "http://" text)))
       (catch URISyntaxException _ nil)))

(defn node
  "A node from its URL or `HOST:PORT`: `{:name :host :port}`; nil when it is none."
  [text]
  (let [uri  (node-uri text)
        host (some-> uri .getHost)
        port (if uri (.getPort uri) -1)
        port (if (and (neg? (long port)) (str/includes? text "://")) 80 port)]
    (when (and host
               (= "http" (some-> (.getScheme uri) str/lower-case))
               (<= 1 port 65535)
               (not (or (.getUserInfo uri) (.getQuery uri) (.getFragment uri)))
               (contains? #{"" "/"} (.getPath uri)))
      {:name (str host ":" port)
       :host (str/replace host #"^\[|\]$" "")
       :port port})))

(defn- nodes
  "`[nodes nil]`, or `[nil sentence]`."
  [texts]
  (let [texts (or (seq (remove str/blank? (mapcat #(str/split % #",") texts))) [default-node])
        found (mapv node texts)]
    (if-let [bad (first (keep (fn [[text found]] (when-not found text)) (map vector texts found)))]
      [nil (str "\"" bad "\" is no node; write it like http://localhost:3000 or localhost:3000.")]
      [(vec (distinct found)) nil])))

;; ------------------------------------------------------------------------------------------------------------- parse

(defn- sentence
  "tools.cli's message, as one sentence."
  [message]
  (str (str/replace message #"^Failed to validate \"(.*?)\": " "$1: ") "."))

(defn- given
  "The options that the arguments name, without defaults."
  [arguments]
  (:options (cli/parse-opts arguments specification :no-defaults true)))

(defn- contradiction
  "What does not go together, as a sentence; nil when all does."
  [given generated?]
  (cond (and (not generated?) (some given shapes-generated-load))
        (str "--" (name (first (filter given shapes-generated-load)))
             " shapes generated load; give --duration or --count with it.")
        (and generated? (:strict given))
        "--strict is about lines; with --duration or --count none are read."))

(defn parse
  "What the arguments ask for: `{:help text}`, `{:error sentence}`, or the options with

    :nodes       [{:name :host :port} ...]
    :generate?   whether load is generated rather than read
    :read-share  share of reads, 0 to 1"
  [arguments]
  (let [{:keys [options errors summary] texts :arguments} (cli/parse-opts arguments specification)
        [nodes bad-node] (nodes texts)
        generate?        (boolean (or (:duration options) (:count options)))]
    (if (:help options)
      {:help (help summary)}
      (if-let [error (or (some-> (first errors) sentence) bad-node (contradiction (given arguments) generate?))]
        {:error error}
        (-> options
            (dissoc :mix)
            (assoc :nodes nodes, :generate? generate?, :read-share (:mix options)))))))
