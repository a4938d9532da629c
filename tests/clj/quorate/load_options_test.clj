(ns quorate.load-options-test
  (:require [clojure.string :as str]
            [clojure.test :refer [are deftest is testing]]
            [quorate.load.options :as options]))

(set! *warn-on-reflection* true)

(deftest a-node-is-a-url-or-a-host-with-a-port
  (are [text host port] (= {:host host, :port port} (select-keys (options/node text) [:host :port]))
    "localhost:3000"         "localhost" 3000
    "http://localhost:4000"  "localhost" 4000
    "http://localhost:4000/" "localhost" 4000
    "HTTP://example.org"     "example.org" 80
    "127.0.0.1:1"            "127.0.0.1" 1
    "[::1]:3000"             "::1" 3000)
  (are [text] (nil? (options/node text))
    "" "localhost" "https://localhost:3000" "localhost:0" "localhost:65536" "http://a:1/path" "http://u@a:1" "a:1?x" "a b:1" ":3000" "a:b"))

(deftest what-the-arguments-ask-for
  (let [{:keys [nodes generate? read-share] :as all}
        (options/parse ["-c" "7" "--rate" "12.5" "--duration" "3" "--mix" "3:1" "--keys" "9" "--distribution" "zipf" "--value-size" "0"
                        "--read" "local" "--timeout-ms" "10" "--retry-ms" "0" "--plot" "x.svg" "--json" "a:1,b:2" "http://c:3"])]
    (is (nil? (:error all)))
    (is (= ["a:1" "b:2" "c:3"] (map :name nodes)))
    (is (true? generate?))
    (is (= 0.75 read-share))
    (is (= {:concurrency 7, :rate 12.5, :duration 3.0, :keys 9, :distribution "zipf", :value-size 0, :read "local", :timeout-ms 10
            :retry-ms 0, :plot "x.svg", :json true}
           (dissoc all :nodes :generate? :read-share))))
  (testing "without any, lines are read and go to the server's own port"
    (let [{:keys [nodes generate? read-share concurrency]} (options/parse [])]
      (is (= [["localhost:3000"] false 0.0 32] [(map :name nodes) generate? read-share concurrency]))))
  (is (:generate? (options/parse ["--count" "5"]))))

(deftest what-is-wrong-is-one-sentence
  (are [arguments part] (let [error (:error (options/parse arguments))]
                          (and error (str/includes? error part) (str/ends-with? error ".") (not (str/includes? error "\n"))))
    ["--concurrency" "0"]            "--concurrency 0: it must be a number from 1 to 4096"
    ["-c" "many"]                    "it must be a number from 1 to 4096"
    ["--rate" "-1"]                  "rate"
    ["--rate" "0"]                   "rate"
    ["--duration" "soon"]            "duration"
    ["--count" "1.5"]                "count"
    ["--count" "5" "--mix" "0:0"]    "90:10"
    ["--count" "5" "--mix" "1"]      "90:10"
    ["--count" "5" "--distribution" "normal"] "uniform, zipf or sequential"
    ["--read" "dirty"]               "linearizable, lease or local"
    ["--plot" "picture.png"]         ".svg"
    ["--colour"]                     "--colour"
    ["--rate"]                       "--rate"
    ["nowhere"]                      "\"nowhere\" is no node"
    ["--mix" "1:1"]                  "--mix shapes generated load"
    ["--value-size" "9"]             "--value-size shapes generated load"
    ["--strict" "--count" "1"]       "--strict is about lines"
    ["--value-size" "8388608" "--count" "1"] "value-size"))

(deftest help-names-every-option
  (let [help (:help (options/parse ["--help" "nowhere" "--rate" "x"]))]
    (doseq [option ["--concurrency" "--rate" "--duration" "--count" "--mix" "--keys" "--distribution" "--value-size" "--read" "--timeout-ms"
                    "--retry-ms" "--strict" "--plot" "--json" "--help" "Exit status"]]
      (is (str/includes? (str help) option)))))
