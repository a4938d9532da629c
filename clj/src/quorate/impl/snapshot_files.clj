(ns quorate.impl.snapshot-files
  "What users' snapshots leave on the disk, beside what the user's own functions write.

  A *marker* is all that the engine keeps, and sends to other nodes, as the snapshot of a `:state-machine`: which index and
  term, of which convention, written by which server; in the README's convention the state itself as well.

  The *record*, a file `complete` in LOG-DIRECTORY/user-snapshots, names the indexes whose snapshots are whole on this
  disk, written or received here. It is needed since files of a transfer that broke off look like whole ones to
  `:snapshot-list-indexes`."
  (:require [clojure.java.io :as io]
            [clojure.tools.logging :as log]
            [quorate.impl.codec :as codec]
            [quorate.impl.errors :as errors])
  (:import (java.io File)
           (java.nio.channels FileChannel)
           (java.nio.file CopyOption Files OpenOption StandardCopyOption StandardOpenOption)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:const marker-version 1)
(def ^:const recorded-max "Indexes that the record names, the newest ones." 8)
(def ^:const files-kept "Files of the README's convention that stay, the newest ones." 3)

(defn directory
  "Where the snapshots of the configuration's node are, an absolute File; may not exist yet."
  ^File [{:keys [log-directory]}]
  (io/file (.getAbsoluteFile (io/file log-directory)) "user-snapshots"))

(defn force!
  "Forces `file`, or the entries of a directory, to the disk. Throws IOException."
  [^File file]
  (with-open [channel (FileChannel/open (.toPath file) (into-array OpenOption [StandardOpenOption/READ]))]
    (.force channel true)))

;; ------------------------------------------------------------------------------------------------------- markers

(defn write-marker!
  "Writes `marker`, `{:kind :index :term :server}` and perhaps `:state`, to `path`, durably. Throws ex-info
  `:raft/unreadable` when the state has a part that could not be read back, or IOException."
  [marker path]
  (codec/write-file! (assoc marker :quorate/snapshot marker-version) path))

(defn read-marker
  "The marker at `path`. Throws ex-info `:raft/corrupt` when there is something else, or IOException."
  [path]
  (let [found (codec/read-file path)]
    (when-not (and (map? found) (contains? found :quorate/snapshot))
      (throw (errors/error :raft/corrupt "This is the snapshot of a :reducer, and this node has a :state-machine. All nodes need the same kind.")))
    (when-not (= marker-version (:quorate/snapshot found))
      (throw (errors/error :raft/corrupt (str "A snapshot of format " (:quorate/snapshot found) ", which this version of Quorate does not know."))))
    found))

;; -------------------------------------------------------------------------------------------------------- record

(defn- record-file ^File [^File directory]
  (io/file directory "complete"))

(defn complete
  "The snapshots that are whole on this disk, `[{:index :term} ...]`, ascending. An unreadable record counts as empty, with
  a warning: the snapshots are then fetched again."
  [directory]
  (let [file (record-file directory)]
    (if (.exists file)
      (try
        (codec/read-file file)
        (catch Exception e
          (log/warn e "The record of snapshots" (str file) "cannot be read; it is taken as empty.")
          []))
      [])))

(defn- replace-record! [^File directory entries]
  (let [file   (record-file directory)
        beside (io/file directory "complete.new")]
    (.mkdirs directory)
    (codec/write-file! entries beside)
    (Files/move (.toPath beside) (.toPath file)
                (into-array CopyOption [StandardCopyOption/ATOMIC_MOVE StandardCopyOption/REPLACE_EXISTING]))
    (force! directory)))

(defn note-complete!
  "From now on the snapshot of `index` is whole on this disk. Throws IOException."
  [directory index term]
  (let [others (remove #(= index (:index %)) (complete directory))]
    (replace-record! directory (vec (take-last recorded-max (sort-by :index (conj others {:index index, :term term})))))))

(defn forget-complete!
  "The snapshot of `index` is about to be written over. Throws IOException."
  [directory index]
  (let [entries (complete directory)
        others  (filterv #(not= index (:index %)) entries)]
    (when (not= entries others)
      (replace-record! directory others))))

;; --------------------------------------------------------------------------------------- the README's own files

(defn state-file
  "The File that a README-style `:snapshot-write` gets for `index`; its directory exists."
  ^File [^File directory index]
  (.mkdirs directory)
  (io/file directory (str index ".snapshot")))

(defn- index-of
  "The index in a name that [[state-file]] gives, else nil."
  [^File file]
  (some-> (re-matches #"(\d{1,18})\.snapshot" (.getName file)) second parse-long))

(defn trim!
  "Deletes all but the newest files of [[state-file]]."
  [^File directory]
  (doseq [^File old (drop-last files-kept (sort-by index-of (filter index-of (.listFiles directory))))]
    (when-not (.delete old)
      (log/warn "The old snapshot" (str old) "cannot be deleted."))))
