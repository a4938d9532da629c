;; The project's own tasks live beside this file; they need no plugin.
(doseq [task ["native_library" "plain_repl"]]
  (load-file (str (.getParent (clojure.java.io/file *file*)) "/dev/lein/" task ".clj")))

(defproject quorate "0.2.0"
  :description "Replicated, durable state inside a JVM: Raft in Rust, driven from Clojure."
  :license {:name "Eclipse Public License 2.0" :url "https://www.eclipse.org/legal/epl-2.0/"}

  ;; Debian's own jars, for machines that reach only Debian and Maven Central. Debian ships no checksum files.
  :repositories [["debian" {:url "file:///usr/share/maven-repo" :checksum :ignore}]]
  ;; Debian's poms call every version "debian"; these are the versions that are meant.
  :managed-dependencies [[org.clojure/clojure "1.11.4"]
                         [commons-fileupload "1.4"]
                         [commons-io "2.11.0"]
                         [crypto-random "1.2.1"]
                         [crypto-equality "1.0.0"]
                         [ring/ring-core "1.8.2"]
                         [ring/ring-codec "1.2.0"]
                         [ring/ring-servlet "1.8.2"]]
  :dependencies [[org.clojure/clojure "1.11.4"]
                 [org.clojure/tools.logging "1.3.0"]
                 [ring/ring-core "1.8.2"]
                 [ring/ring-jetty-adapter "1.8.2"]
                 ;; quorate.load's: HTTP connections, latencies, command line, Zipf's distribution.
                 [org.apache.httpcomponents.core5/httpcore5 "5.3.4"]
                 [org.hdrhistogram/HdrHistogram "2.2.2"]
                 [org.clojure/tools.cli "1.1.230"]
                 [org.apache.commons/commons-rng-sampling "1.6"]]

  :source-paths ["clj/src"]
  :java-source-paths ["clj/java"]
  :resource-paths ["clj/resources"]
  :test-paths ["tests/clj"]
  ;; Apart from Cargo's files, so that `lein clean` leaves those alone.
  :target-path "target/lein"
  :javac-options ["--release" "17" "-Xlint:all,-path"]
  :prep-tasks ["native-library" "javac" "compile"]
  ;; Replaces Leiningen's own options: those would stop the compiler at its first tier.
  :jvm-opts ^:replace ~(leiningen.native-library/jvm-options (.getParent (clojure.java.io/file *file*)))

  :main ^:skip-aot quorate.ring.main
  :aliases {"ring" ["run" "-m" "quorate.ring.main"]
            "repl" "plain-repl"}
  :repl-options {:init-ns user}

  :profiles {:dev {:source-paths ["examples/kv-fluree/src" "examples/kv-reducer/src"]
                   :dependencies [[org.clojure/test.check "1.1.1"]
                                  [org.clojure/core.async "1.6.681"]]}
             ;; Only a REPL loads user.clj; a server and the tests start without it.
             :repl {:source-paths ["clj/dev"]}
             :test {:jvm-opts ["-Xcheck:jni"]}
             ;; `make bench-drop-in`.
             :bench {:source-paths ["benches/clojure"]
                     :java-source-paths ["benches/clojure/java"]
                     :dependencies [[org.hdrhistogram/HdrHistogram "2.2.2"]]}
             ;; `make jar` puts the native library there.
             :with-library {:resource-paths ["target/jar-resources"]}})
