(ns quorate.raft.log
  "What consumers of fluree.raft.log use."
  (:require [clojure.java.io :as io])
  (:import (java.io File)
           (java.util.regex Pattern)))

(set! *warn-on-reflection* true)

(defn- id-of
  "The number that `pattern` finds in the file's name; nil when it does not match, or is beyond a long."
  [^Pattern pattern ^File file]
  (some-> (re-matches pattern (.getName file)) second parse-long))

(defn all-log-indexes
  "The numbers of all files below the directory `path` that are named `<number>.<type>`, in no order; none when there is no
  such directory. Users' own snapshots, which fluree's kv example names `<index>.snapshot`, are found so.

  For `type` \"raft\", the default, these are the files of the log: ours are named `<number>.raftlog`, in `group-0/log` of the
  log directory, and fluree's `<index>.raft`. Our numbers count files; they are not positions in the log."
  ([path] (all-log-indexes path "raft"))
  ([path type]
   (let [pattern (re-pattern (str "([0-9]+)\\." (if (= "raft" type) "raft(?:log)?" (Pattern/quote type))))]
     (->> (file-seq (io/file path))
          (filter (fn [^File file] (.isFile file)))
          (keep #(id-of pattern %))))))
