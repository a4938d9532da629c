(ns quorate.impl.reader
  "Reads what `quorate.impl.writer` wrote: `clojure.edn` with a few tags of our own. Nothing is ever evaluated.

  A record's tag is its class name. Where the class is there it is read as the record; elsewhere, and for every unknown
  tag, as a `tagged-literal`, which writes back as it was.

  Bytes are read by `quorate.impl.EdnBytes` where that is sure of them, by `clojure.edn` otherwise: the value is the same."
  (:require [clojure.edn :as edn]
            [clojure.string :as str]
            [quorate.impl.errors :as errors])
  (:import (clojure.lang IPersistentMap IRecord PersistentQueue RT)
           (java.io PushbackReader Reader)
           (java.lang.reflect Method)
           (java.nio.charset StandardCharsets)
           (java.time Instant)
           (java.util Base64 Date)
           (quorate.impl EdnBytes TextReader)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private readers
  {'quorate/bytes      (fn [^String text] (.decode (Base64/getDecoder) text))
   'quorate/char       char
   'quorate/date       (fn [^long ms] (Date. ms))
   'quorate/instant    (fn [^String text] (Instant/parse text))
   'quorate/sorted-map (fn [m] (into (sorted-map) m))
   'quorate/sorted-set (fn [s] (into (sorted-set) s))
   'quorate/queue      (fn [v] (into PersistentQueue/EMPTY v))})

(defn reserved-tag?
  "True for tags that stand for a type of Clojure's or ours: a tagged literal of the user's cannot have one."
  [tag]
  (or (= "quorate" (namespace tag))
      (contains? '#{inst uuid} tag)))

(defn record-tag?
  "True when `tag` looks like a record's: a class name within a package."
  [tag]
  (and (nil? (namespace tag))
       (str/includes? (name tag) ".")))

(def ^:private ^java.lang.ClassValue factories
  "The static `create` of each record class."
  (proxy [java.lang.ClassValue] []
    (computeValue [^Class c]
      (when (.isAssignableFrom IRecord c)
        (.getMethod c "create" (into-array Class [IPersistentMap]))))))

(defn- record-factory
  "The factory method of the record class named by `tag`, nil when there is no such record here. The class is looked up
  without being initialised, so that an entry cannot run anything but a record's constructor."
  ^Method [tag]
  (try
    (.get factories (Class/forName (name tag) false (RT/baseLoader)))
    (catch ClassNotFoundException _ nil)
    (catch LinkageError _ nil)))

(defn- unknown-tag [tag value]
  (let [factory (when (and (map? value) (record-tag? tag))
                  (record-factory tag))]
    (if factory
      (.invoke ^Method factory nil (object-array [value]))
      (tagged-literal tag value))))

(def ^:private options
  {:readers readers, :default unknown-tag})

(def ^:private with-end
  (assoc options :eof ::end))

(defn- unreadable [^Throwable cause]
  (errors/error :raft/corrupt (str "This is not readable EDN: " (ex-message cause)) nil cause))

(defn- read-one [^PushbackReader in]
  (try
    (let [value (edn/read with-end in)]
      (when (or (identical? ::end value)
                (not (identical? ::end (edn/read with-end in))))
        (throw (errors/error :raft/corrupt "One EDN value was expected.")))
      value)
    (catch clojure.lang.ExceptionInfo e (throw e))
    (catch Exception e (throw (unreadable e)))
    ;; clojure.core's reader of #uuid asserts that it gets a string.
    (catch AssertionError e (throw (unreadable e)))))

(defn from-reader
  "The one value in the text that `in` gives. Throws ex-info `:raft/corrupt` when there is none, more than one, or
  something that is not EDN."
  [^Reader in]
  (read-one (PushbackReader. in)))

(defn from-text
  "The one value in `text`; see [[from-reader]]."
  [^String text]
  (read-one (TextReader. text)))

(defn- tagged
  "What `#tag form` is, as `clojure.edn` finds it."
  [tag form]
  (if-let [read-it (or (readers tag) (default-data-readers tag))]
    (read-it form)
    (unknown-tag tag form)))

(defn from-bytes
  "The one value in `bytes`, UTF-8, between `from` and `to`; see [[from-reader]]."
  [^bytes bytes ^long from ^long to]
  (let [value (EdnBytes/read bytes (int from) (int to) tagged)]
    (if (identical? EdnBytes/NOT_HERE value)
      (from-text (String. bytes (int from) (int (- to from)) StandardCharsets/UTF_8))
      value)))

(defn check-readable
  "Calls `read-it`, which reads what was just written; throws ex-info `:raft/unreadable` when that fails, e.g. because a
  set would have equal elements."
  [read-it]
  (try
    (read-it)
    (catch clojure.lang.ExceptionInfo e
      (throw (errors/error :raft/unreadable
                           (str "The value cannot be read back: " (ex-message (or (ex-cause e) e)) ".")
                           {:path []}
                           e))))
  nil)
