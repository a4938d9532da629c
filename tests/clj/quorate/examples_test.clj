(ns quorate.examples-test
  "The examples do what their READMEs say."
  (:require [clojure.java.io :as io]
            [clojure.string :as str]
            [clojure.test :refer [deftest is testing]]
            [examples.kv-fluree :as kv-fluree]
            [examples.kv-reducer :as kv-reducer]
            [quorate.clusters :as clusters])
  (:import (java.io File StringWriter)
           (java.util List)
           (java.util.concurrent TimeUnit)
           (javax.tools ToolProvider)))

(set! *warn-on-reflection* true)

;; ------------------------------------------------------------------------------------------------------ kv-reducer

(deftest the-reducer-is-a-plain-function
  (let [put (first (kv-reducer/apply-entry {} {:op :put, :key :k, :value 1} {:index 7}))]
    (is (= {:k {:value 1, :index 7}} put))
    (is (= [put {:swapped? false, :current 1}] (kv-reducer/apply-entry put {:op :cas, :key :k, :expected 2, :value 3} {:index 8})))
    (is (= [{} {:deleted? true}] (kv-reducer/apply-entry put {:op :delete, :key :k} {:index 8})))
    (is (= [put {:error "There is no operation :drop."}] (kv-reducer/apply-entry put {:op :drop} {:index 8})))))

(defmacro ^:private with-output
  "What `body` returns, and what it printed."
  [& body]
  `(let [out# (StringWriter.)]
     [(binding [*out* out#] ~@body) (str out#)]))

(deftest one-node-and-three-keep-the-store
  (clusters/with-directory
   (fn [directory]
     (let [[value said] (with-output (kv-reducer/one-node (io/file directory "solo")))]
       (is (= "black" value) "the second cas found another value, and the restart lost nothing")
       (is (str/includes? said "{:swapped? false, :current black}") said))
     (let [[states said] (with-output (kv-reducer/three-nodes directory))]
       (is (= 3 (count states)) said)
       (is (apply = states) said)
       (is (= {"a" "was here", "b" "was here", "c" "was here"} (update-vals (first states) :value)))))))

;; ------------------------------------------------------------------------------------------------------- kv-fluree

(deftest a-store-in-fluree-s-way-tells-its-story
  (clusters/with-directory
   (fn [directory]
     (let [[states said] (with-output (kv-fluree/story directory))]
       (is (= 4 (count states)) said)
       (is (apply = states) said)
       (is (= (assoc (zipmap (range 50) (range 250 300)) 49 :last) (first states)))
       (is (re-find #"c is back with 50 keys from snapshot [1-9]" said) said)))))

;; ------------------------------------------------------------------------------------------------------------ java

(defn- java-example
  "Compiles the example, warnings being errors. Returns javac's status and messages."
  [^File classes]
  (let [messages (java.io.ByteArrayOutputStream.)
        status   (.run (ToolProvider/getSystemJavaCompiler) nil messages messages
                       (into-array String ["--release" "17" "-Xlint:all,-path" "-Werror" "-d" (str classes)
                                           "-cp" (System/getProperty "java.class.path")
                                           "examples/java/src/QuorateFromJava.java"]))]
    [status (str messages)]))

(defn- run-java-example
  "Runs the compiled example in a JVM of its own. Returns its exit status, `:late` when it did not end, and its output."
  [^File classes ^File directory]
  (let [java    (str (io/file (System/getProperty "java.home") "bin" "java"))
        class-path (str classes File/pathSeparator (System/getProperty "java.class.path"))
        output  (io/file directory "output")
        command [java (str "-Dquorate.library=" (System/getProperty "quorate.library")) "-Xcheck:jni" "-cp" class-path
                 "QuorateFromJava" (str (io/file directory "data"))]
        process (-> (ProcessBuilder. ^List command)
                    (.redirectErrorStream true)
                    (.redirectOutput output)
                    (.start))]
    (try
      [(if (.waitFor process 120 TimeUnit/SECONDS) (.exitValue process) :late) (slurp output)]
      (finally (.destroyForcibly process)))))

(deftest plain-java-uses-the-store
  (clusters/with-directory
   (fn [directory]
     (let [classes (doto (io/file directory "classes") .mkdirs)]
       (is (= [0 ""] (java-example classes)))
       (testing "twice in one directory: the second run finds what the first wrote"
         (doseq [visit [1 2]]
           (let [[status said] (run-java-example classes directory)]
             (is (= 0 status) said)
             (is (str/includes? said (str "visits: " visit)) said)
             (is (not (re-find #"WARNING|FATAL" said)) said))))))))
