;; Compiles every Clojure file under the given folders with the warnings on, and fails when one of them warns: all of them
;; for reflection, the sources under clj/ for boxed arithmetic too.
;; Libraries that are compiled on the way may warn; only the project's own files count.
(require '[clojure.java.io :as io] '[clojure.string :as str])
(import '(java.io File PrintWriter StringWriter))

(defn- clojure-files [folder]
  (->> (file-seq (io/file folder))
       (filter #(and (.isFile ^File %) (re-find #"\.cljc?$" (.getName ^File %))))
       (sort-by str)))

(defn- warnings-of
  "Loads one file; returns its warnings, or the reason why it does not compile."
  [^File file]
  (let [err (StringWriter.)]
    (try
      (binding [*err*                (PrintWriter. err true)
                *warn-on-reflection* true
                *unchecked-math*     (if (str/starts-with? (str file) "clj/") :warn-on-boxed false)]
        (load-file (str file)))
      ;; load-file names the file as it was given, what it requires by its path on the classpath.
      (filter #(and (re-find #"^(Reflection|Boxed math) warning|^WARNING" %) (str/includes? % (str file)))
              (str/split-lines (str err)))
      (catch Throwable e
        [(str file " does not compile: " (or (some-> e ex-cause ex-message) (ex-message e)))]))))

(let [files    (mapcat clojure-files *command-line-args*)
      warnings (doall (mapcat warnings-of files))]
  (run! println warnings)
  (println (count files) "files," (count warnings) "warnings")
  (shutdown-agents)
  (System/exit (if (and (seq files) (empty? warnings)) 0 1)))
