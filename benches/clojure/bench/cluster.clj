(ns bench.cluster
  "Three processes that form a cluster, in JVMs, or the followers in Rust."
  (:require [bench.harness :as harness]
            [clojure.java.io :as io]
            [clojure.string :as str]))

(set! *warn-on-reflection* true)

(def servers "Their names; the first leads." ["a" "b" "c"])

(def ^:private jvm-options
  "As the peers' (benches/peers). The heap is touched at the start: else each new page of it costs while entries are counted."
  ["-Xms512m" "-Xmx1g" "-XX:+AlwaysPreTouch"])

(defn bench-program
  "The path of quorate-bench, which lies beside the library. Throws when it was not built."
  ^String []
  (let [file (io/file (.getParentFile (io/file (System/getProperty "quorate.library"))) "quorate-bench")]
    (when-not (.exists file)
      (throw (ex-info (str file " is not there: cargo build --release -p quorate-bench") {})))
    (str file)))

(defn- engine-follower! [dir addresses kind name]
  (let [named  (str/join "," (map (fn [[k v]] (str k "=" v)) addresses))
        member (harness/spawn! name [(bench-program) "node" "--name" name "--servers" named
                                     "--machine" (if (= :kv kind) "kv" "counter") "--dir" (str (io/file dir name))])]
    (harness/line! member 40)
    member))

(defn- await-voters! [leader]
  (loop [tries 400]
    (when-not (= 3 (:voters (harness/ask! leader {:op :facts} 30)))
      (when (zero? tries) (throw (ex-info "The three did not find together." {})))
      (Thread/sleep 50)
      (recur (dec tries)))))

(defn start!
  "Starts the members of a new cluster with their data in `dir`, adds them to the atom `members`, and returns the first, which leads.
  `kind` is that of `bench.node`; `followers` :jvm or :engine; `jvm` has options of the JVMs and `config` of the nodes."
  [members dir {:keys [kind followers jvm config]}]
  (let [addresses (zipmap servers (harness/free-addresses 3))
        in-jvm    (if (= :engine followers) [(first servers)] servers)
        options   (or jvm jvm-options)]
    (doseq [name in-jvm]
      (swap! members conj (harness/spawn! name (harness/java-command options "bench.node"))))
    (let [jvms @members]
      (when (= :engine followers)
        (doseq [name (rest servers)]
          (swap! members conj (engine-follower! dir addresses kind name))))
      (doseq [{:keys [name] :as member} jvms]
        (harness/ask! member {:op :start, :name name, :servers addresses, :dir (str dir), :machine-kind kind, :config config} 60)))
    (let [leader (first @members)]
      (await-voters! leader)
      (harness/ask! leader {:op :lead} 60)
      leader)))
