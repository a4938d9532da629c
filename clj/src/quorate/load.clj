(ns quorate.load
  "`quorate-load`: writes lines `key value` into ring servers, or generates load; tells rate, latencies and errors. See `--help`."
  (:require [clojure.string :as str]
            [quorate.load.generated :as generated]
            [quorate.load.lines :as lines]
            [quorate.load.nodes :as nodes]
            [quorate.load.operation :as operation]
            [quorate.load.options :as options]
            [quorate.load.pace :as pace]
            [quorate.load.plot :as plot]
            [quorate.load.report :as report]
            [quorate.load.tally :as tally]
            [quorate.load.workers :as workers])
  (:import (java.io FileDescriptor FileInputStream IOException)
           (java.util.concurrent.atomic AtomicBoolean)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private look-ms "How often there is a new point, and on a terminal a new line of progress." 500)
(def ^:private looks-a-line "Elsewhere there is a line of progress for so many points." 4)
(def ^:private stop-ms "How long after ^C operations that are under way may still be answered." 1000)

(defn- standard-input
  "The standard input and, when it is a file, how many bytes it still has; 0 otherwise."
  []
  (let [stream  (FileInputStream. FileDescriptor/in)
        channel (.getChannel stream)]
    [stream (try (max 0 (- (.size channel) (.position channel)))
                 (catch IOException _ 0))]))

(defn- on-invalid
  "A function of a line's number and what is wrong with it. With `--strict` no line is read after it; those before it are written."
  [{:keys [strict]} screen tally ^AtomicBoolean closed]
  (fn [number reason]
    (tally/invalid! tally)
    (report/say! screen (str "Line " number " " (str/replace reason #"\.$" "") "."))
    (when strict
      (.set closed true))))

(defn- source [{:keys [generate? input] :as options} pace invalid closed]
  (if generate?
    (generated/source options)
    (let [[stream total] (or input (standard-input))]
      (lines/source stream total closed {:invalid invalid, :waited #(pace/idle pace %1 %2)}))))

(defn- share-done
  "Which share of the run is done, by count or by time, whichever is further."
  [{:keys [duration]} source point]
  (let [by-count (operation/share-done source)
        by-time  (when duration (min 1.0 (/ (double (:at point)) (double duration))))]
    (when (or by-count by-time)
      (max (double (or by-count 0.0)) (double (or by-time 0.0))))))

(defn begin
  "Starts what the options of `options/parse` ask for, and returns at once. `:input`, of `[stream bytes]`, stands for the standard input;
  `:screen`, of `report/screen`, is where messages go."
  [{:keys [rate duration screen] :as options}]
  (let [tally   (tally/start)
        closed  (AtomicBoolean.)
        pace    (pace/start rate duration)
        invalid (on-invalid options screen tally closed)
        source  (source options pace invalid closed)
        watched (nodes/start (:nodes options))]
    {:options options, :tally tally, :pace pace, :source source, :screen screen, :stop-watching (:stop watched)
     :run     (workers/start (-> (select-keys options [:concurrency :timeout-ms :retry-ms])
                                 (assoc :source source, :pace pace, :tally tally, :nodes (:nodes watched), :stop (AtomicBoolean.), :invalid invalid)))}))

(defn- draw! [{:keys [options tally source pace screen]} point]
  (report/draw! screen
                (report/progress-line point {:total         (tally/operations tally)
                                             :share         (share-done options source point)
                                             :errors        (tally/error-count tally)
                                             :invalid-lines (tally/invalid-count tally)
                                             :behind-ns     (pace/behind-ns pace)})))

(defn await-end
  "Waits until all is done, showing progress. After a stop, what is under way may still be answered within its time."
  [{:keys [options run tally screen] :as running}]
  (let [looks-a-line (if (:terminal? screen) 1 (long looks-a-line))]
    (loop [looks 1, waiting nil, after-stop-ms 0]
      (when-not (or (workers/await-end run look-ms)
                    (< (+ 1000 (long (:timeout-ms options))) after-stop-ms))
        (let [point (cond->> (tally/look! tally) waiting (tally/merged waiting))
              line? (zero? (rem looks looks-a-line))]
          (when line?
            (draw! running point))
          (recur (inc looks)
                 (when-not line? point)
                 (if (workers/stopped? run) (+ after-stop-ms (long look-ms)) 0)))))))

(defn summary
  "What came of it, as `tally/summary`, with `:given-up`, `:under-way`, and `:why` it was stopped, or nil. Ends what still runs."
  [{:keys [tally pace run stop-watching]}]
  (workers/stop! run nil)
  (stop-watching)
  (assoc (tally/summary tally)
         :given-up  (pace/given-up pace)
         :under-way (workers/under-way run)
         :why       (workers/why run)))

(defn run-load
  "Does what the options ask for, to its end; the [[summary]]."
  [options]
  (let [running (begin options)]
    (await-end running)
    (summary running)))

(defn exit-status
  "0 when all went well, 1 otherwise."
  [{:keys [errors invalid-lines given-up why]}]
  (if (and (empty? errors) (zero? (long invalid-lines)) (zero? (long given-up)) (nil? why)) 0 1))

;; -------------------------------------------------------------------------------------------------------------- main

(defn- subtitle [{:keys [nodes concurrency rate]} {:keys [ops-per-s writes reads]}]
  (str (count nodes) " nodes, concurrency " concurrency (when rate (str ", rate " rate)) "; " ops-per-s " operations a second, "
       (:count writes) " writes and " (:count reads) " reads"))

(defn- write-plot!
  "Whether the picture could be written; says why not."
  [{file :plot, screen :screen, :as options} tally summary]
  (try
    (spit file (plot/svg "quorate-load" (subtitle options summary) (tally/series tally)))
    true
    (catch IOException thrown
      (report/say! screen (str "The plot could not be written: " (ex-message thrown) "."))
      false)))

(defn- tell!
  "Prints the summary, draws the plot; the exit status."
  [{:keys [options screen tally] :as running}]
  (let [summary (summary running)]
    (report/finish! screen)
    (print (if (:json options) (report/json-text summary) (report/text summary)))
    (flush)
    (if (and (or (nil? (:plot options)) (write-plot! options tally summary))
             (zero? (long (exit-status summary))))
      0
      1)))

(defn- on-interrupt
  "When the process is told to end before it is done, it lets what is under way end for a moment and tells what there is so far."
  [{:keys [run]} told]
  (.addShutdownHook (Runtime/getRuntime)
                    (Thread. ^Runnable (fn []
                                         (when-not (realized? told)
                                           (workers/stop! run "Interrupted.")
                                           (workers/await-end run stop-ms)
                                           (force told)))
                             "quorate-load-interrupted")))

(defn- load! [options]
  (let [screen  (report/screen)
        running (begin (assoc options :screen screen))
        told    (delay (tell! running))]
    (on-interrupt running told)
    (await-end running)
    (force told)))

(defn- usage-error [sentence]
  (binding [*out* *err*]
    (println sentence)
    (println "quorate-load --help tells what is possible.")
    (flush))
  2)

(defn- plot-problem
  "Why the file of the plot cannot be written, as a sentence; nil when it can."
  [{file :plot}]
  (when file
    (try (spit file "")
         nil
         (catch IOException thrown
           (str "--plot " file ": it cannot be written: " (ex-message thrown) ".")))))

(defn- no-node
  "A sentence when no node can be reached, within the time that one has for an answer."
  [{:keys [nodes timeout-ms]}]
  (when-let [problem (nodes/unreachable nodes timeout-ms)]
    (str "No node can be reached: " problem ".")))

(defn -main
  "Exits with 0 when all went well, 1 after errors, 2 for bad usage; ^C prints the summary so far and exits with 130."
  [& arguments]
  (let [{:keys [help error] :as options} (options/parse arguments)
        status (cond help  (do (println help) 0)
                     error (usage-error error)
                     :else (if-let [problem (plot-problem options)]
                             (usage-error problem)
                             (if-let [problem (no-node options)]
                               (do (binding [*out* *err*] (println problem)) 1)
                               (load! options))))]
    (flush)
    (System/exit status)))
