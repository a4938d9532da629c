(ns quorate.fluree.file-snapshots
  "A state machine as fluree/raft's users write them: a map in an atom, its snapshots in files named by index, sent in parts.
  Everything that is called is noted, and each function can be replaced."
  (:require [clojure.edn :as edn]
            [clojure.java.io :as io]
            [clojure.test :refer [is]]
            [quorate.fluree.nodes :refer [entry!]])
  (:import (java.io File)
           (java.util Arrays)))

(set! *warn-on-reflection* true)

(defn file
  "Where the snapshot of `index` is."
  ^File [directory index]
  (io/file directory (str index ".snap")))

(defn- write-file! [directory index state]
  (io/make-parents (file directory index))
  (spit (file directory index) (pr-str state)))

(defn- all-bytes ^bytes [^File f]
  (java.nio.file.Files/readAllBytes (.toPath f)))

(defn part
  "Part `n` (from 1) of `bytes` cut into `parts`."
  [^bytes bytes parts n]
  (let [size (long (Math/ceil (/ (alength bytes) (double parts))))
        from (min (alength bytes) (* size (dec (long n))))]
    (Arrays/copyOfRange bytes (int from) (int (min (alength bytes) (+ from size))))))

(defn- step! [{:keys [state steps]} [op k v]]
  (swap! steps conj k)
  (case op
    :set (do (swap! state assoc k v) v)
    :get (get @state k)))

(defn- append! [directory {:keys [snapshot-index snapshot-part snapshot-data]}]
  (let [f (file directory snapshot-index)]
    (io/make-parents f)
    (when (= 1 snapshot-part)
      (io/delete-file f true))
    (with-open [out (io/output-stream f :append true)]
      (.write out ^bytes snapshot-data))))

(defn user
  "A user with files in `directory`: `:state`, `:steps` (the key of every entry applied) and `:calls` (every call of a snapshot function, as `[key
  argument ...]`, in order; all atoms), `:fns` (the functions under fluree's keys, in the convention of its source).
  `overrides` are functions of the one they replace: `{:snapshot-write (fn [original] (fn [index done] ...))}`."
  ([directory] (user directory nil))
  ([directory {:keys [parts overrides] :or {parts 3}}]
   (let [own   {:state (atom {}), :steps (atom []), :calls (atom [])}
         fns   {:snapshot-write   (fn [index done]
                                    (let [state @(:state own)]
                                      (future (write-file! directory index state)
                                              (done))))
                :snapshot-reify   (fn [index]
                                    (reset! (:state own) (edn/read-string (slurp (file directory index)))))
                :snapshot-xfer    (fn [index n]
                                    {:parts parts, :data (part (all-bytes (file directory index)) parts n)})
                :snapshot-install (fn [part-map] (append! directory part-map))
                :snapshot-list-indexes (fn []
                                         (vec (sort (keep #(some-> (re-matches #"(\d+)\.snap" (.getName ^File %)) second parse-long)
                                                          (.listFiles (io/file directory))))))}
         fns   (reduce-kv (fn [all k f] (update all k f)) fns overrides)
         note! (fn [& call] (swap! (:calls own) conj (vec call)))]
     (assoc own :fns
            {:state-machine         (fn [entry _raft-state] (step! own entry))
             :snapshot-write        (fn [index done] (note! :write index) ((:snapshot-write fns) index done))
             :snapshot-reify        (fn [index] (note! :reify index) ((:snapshot-reify fns) index))
             :snapshot-xfer         (fn [index n] (note! :xfer index n) ((:snapshot-xfer fns) index n))
             :snapshot-install      (fn [part-map] (note! :install part-map) ((:snapshot-install fns) part-map))
             :snapshot-list-indexes (fn [] ((:snapshot-list-indexes fns)))}))))

(defn calls
  "What `user` was called with under the short name `k`: `[[argument ...] ...]`."
  [user k]
  (mapv rest (filter #(= k (first %)) @(:calls user))))

(defn sets!
  "Has `node` set the numbers to themselves, one by one, so that each is an entry of the log of its own. A cluster in the middle of an
  election may take `timeout-ms` (8 s) for one."
  ([node from to] (sets! node from to 8000))
  ([node from to timeout-ms]
   (doseq [i (range from to)]
     (when-not (= i (entry! node [:set i i] timeout-ms))
       (is false (str "entry " i))))))

(defn kept
  "The state when the numbers below `n` were set."
  [n]
  (zipmap (range n) (range n)))
