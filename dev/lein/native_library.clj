(ns leiningen.native-library
  "The Leiningen task `native-library`: builds the shared library that the JVM loads, when its sources are newer.

  It runs before every task that starts a JVM of the project (`:prep-tasks` in project.clj), so it must cost next to
  nothing when there is nothing to do: it compares the newest source with a stamp that the last build left."
  (:require [clojure.java.io :as io]
            [clojure.string :as str]
            [leiningen.core.main :as main])
  (:import (java.io BufferedReader File IOException)))

(def ^:private quiet-ms
  "A build that is done within this time says nothing; a longer one shows Cargo's output."
  4000)

(defn- cargo-target ^File [root]
  (let [named (System/getenv "CARGO_TARGET_DIR")]
    (cond (str/blank? named)                  (io/file root "target")
          (.isAbsolute (io/file named))       (io/file named)
          :else                               (io/file root named))))

(defn library-path
  "The absolute path of the library that Cargo builds in release mode for the project in the folder `root`."
  [root]
  (.getAbsolutePath (io/file (cargo-target root) "release" (System/mapLibraryName "quorate"))))

(defn jvm-options
  "The options that a JVM of the project in the folder `root` is started with: where the library is, permission to load
  it where the JDK asks for that, and one log line per event on stderr."
  [root]
  (cond-> [(str "-Dquorate.library=" (library-path root))
           (str "-Djava.util.logging.config.file=" (.getAbsolutePath (io/file root "clj/resources/quorate/logging.properties")))
           "-Dclojure.tools.logging.factory=clojure.tools.logging.impl/jul-factory"]
    (<= 22 (.feature (Runtime/version))) (conj "--enable-native-access=ALL-UNNAMED")))

(defn- sources
  "The files that the library is built from."
  [root]
  (concat [(io/file root "Cargo.toml") (io/file root "Cargo.lock")]
          (filter #(.isFile ^File %) (file-seq (io/file root "native")))))

(defn- up-to-date? [root ^File stamp]
  (and (.exists (io/file (library-path root)))
       (.exists stamp)
       (<= (transduce (map #(.lastModified ^File %)) max 0 (sources root))
           (.lastModified stamp))))

(defn- show [lines]
  (binding [*out* *err*]
    (run! println lines)
    (flush)))

(defn- relay
  "Reads Cargo's output to its end: holds it back for `quiet-ms`, shows it from then on. Returns what was held back."
  [^BufferedReader output]
  (let [loud-from (+ (System/currentTimeMillis) quiet-ms)]
    (loop [held []]
      (if-let [line (.readLine output)]
        (cond (< (System/currentTimeMillis) loud-from) (recur (conj held line))
              (seq held)                               (do (show (cons "Building the native library:" held))
                                                           (show [line])
                                                           (recur []))
              :else                                    (do (show [line]) (recur [])))
        held))))

(defn- start-cargo ^Process [root]
  (try
    (-> (ProcessBuilder. ^java.util.List ["cargo" "build" "--release" "--locked" "-p" "quorate-bridge"])
        (.directory (io/file root))
        (.redirectErrorStream true)
        (.redirectInput (io/file "/dev/null"))
        (.start))
    (catch IOException _
      (main/abort (str "The native library must be built, and cargo is not on the PATH: install Rust, or put a library at "
                       (library-path root) ".")))))

(defn- build! [root ^File stamp]
  (let [began  (System/currentTimeMillis)
        cargo  (start-cargo root)
        held   (with-open [output (io/reader (.getInputStream cargo))] (relay output))
        status (.waitFor cargo)]
    (when-not (zero? status)
      (show held)
      (main/abort "The native library could not be built; cargo's messages are above."))
    ;; The stamp is as old as the beginning of the build: a source saved meanwhile is newer.
    (io/make-parents stamp)
    (spit stamp "")
    (.setLastModified stamp began)))

(defn native-library
  "Build the native library (cargo build --release) when its sources are newer than the last build."
  [project & _]
  (let [root  (:root project)
        stamp (io/file (cargo-target root) "release" "quorate-library.stamp")]
    (when-not (up-to-date? root stamp)
      (build! root stamp))))
