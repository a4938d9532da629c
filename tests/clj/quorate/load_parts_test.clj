(ns quorate.load-parts-test
  "The loader's parts by themselves: lines, keys, generated operations, pace, figures, plots."
  (:require [clojure.string :as str]
            [clojure.test :refer [are deftest is testing]]
            [quorate.load-stub :as stub]
            [quorate.load.generated :as generated]
            [quorate.load.lines :as lines]
            [quorate.load.operation :as operation]
            [quorate.load.pace :as pace]
            [quorate.load.plot :as plot]
            [quorate.load.report :as report]
            [quorate.load.tally :as tally]
            [quorate.ring.request :as request])
  (:import (java.io InputStream StringReader)
           (java.nio.charset StandardCharsets)
           (java.util Random)
           (java.util.concurrent.atomic AtomicBoolean)
           (javax.xml.parsers DocumentBuilderFactory)
           (org.w3c.dom Element NodeList)
           (org.xml.sax InputSource)
           (quorate.load.operation Operation)))

(set! *warn-on-reflection* true)

;; ------------------------------------------------------------------------------------------------------------- lines

(defn- in-pieces
  "The stream, at most so many bytes a read, as a pipe has it."
  ^InputStream [^InputStream from ^Random chance]
  (proxy [InputStream] []
    (read
      ([] (.read from))
      ([octets] (.read from octets 0 (min (alength ^bytes octets) (inc (.nextInt chance 9)))))
      ([octets offset length] (.read from octets (int offset) (int (min (long length) (inc (.nextInt chance 9)))))))))

(defn- value-of [^Operation op]
  (String. ^bytes (.-octets op) (int (.-offset op)) (int (.-length op)) StandardCharsets/UTF_8))

(defn- read-all
  "What the lines of the stream are: `[target value line]` each, and `[line reason]` of what is wrong."
  [^InputStream from]
  (let [wrong  (atom [])
        source (lines/source from 0 (AtomicBoolean.) {:invalid #(swap! wrong conj [%1 %2]), :waited (fn [_ _])})]
    [(loop [found []]
       (if-let [^Operation op (operation/take-next source)]
         (do ((.-done op))
             (recur (conj found [(.-target op) (value-of op) (.-line op)])))
         found))
     @wrong]))

(deftest lines-are-split-at-the-first-space
  (are [text found] (= found (first (read-all (stub/text-stream text))))
    ""                []
    "k v\n"           [["/k" "v" 1]]
    "k v"             [["/k" "v" 1]]
    "k  v w \n"       [["/k" " v w " 1]]
    "k \n"            [["/k" "" 1]]
    "a 1\nb 2\n"      [["/a" "1" 1] ["/b" "2" 2]]
    "k v\r\n"         [["/k" "v\r" 1]]
    "ü ä\n"           [["/%C3%BC" "ä" 1]])
  (is (= [[["/b" "2" 4]] [[1 "has no space"] [2 "has an empty key"] [3 "has no space"]]]
         (read-all (stub/text-stream "alone\n v\n\nb 2")))))

(deftest lines-come-whole-however-the-bytes-come
  (let [chance (Random. 7)]
    (dotimes [_ 50]
      (let [pairs (vec (for [i (range (.nextInt chance 40))]
                         [(str "k" i) (str/join (repeatedly (.nextInt chance 60) #(char (+ 32 (.nextInt chance 90)))))]))
            text  (stub/lines pairs)
            text  (if (and (seq text) (.nextBoolean chance)) (subs text 0 (dec (count text))) text)]
        (is (= [(map-indexed (fn [i [k v]] [(str "/" k) v (inc i)]) pairs) []]
               (read-all (in-pieces (stub/text-stream text) chance))))))
    (testing "across many buffers"
      (let [long-value (str/join (repeat 300000 "x"))]
        (is (= [[["/a" long-value 1] ["/b" "2" 2]] []]
               (read-all (stub/text-stream (str "a " long-value "\nb 2\n")))))))))

(deftest a-line-beyond-the-limit-is-named-and-not-kept
  (let [left   (atom (+ 10 (long lines/line-bytes-max)))
        tail   (stub/text-stream "\nk v\n")
        stream (proxy [InputStream] []
                 (read
                   ([octets] (.read ^InputStream this octets 0 (alength ^bytes octets)))
                   ([octets offset length]
                    (if (pos? (long @left))
                      (let [n (min (long length) (long @left))]
                        (java.util.Arrays/fill ^bytes octets (int offset) (int (+ (long offset) n)) (byte 65))
                        (swap! left - n)
                        (int n))
                      (.read ^InputStream tail octets (int offset) (int length))))))]
    (is (= [[["/k" "v" 2]] [[1 (str "is longer than " lines/line-bytes-max " bytes")]]] (read-all stream)))))

(deftest every-key-survives-the-path
  (doseq [k ["k" "a/b" "a//b" "/x" "a?b" "a#b" "a%b" "a%20b" "ü€𝄞" "a+b" "a;b=c" "~-._" "\\" "\"" "\u0001"]]
    (is (= k (request/path-key (operation/key-path k))))
    (is (re-matches #"/[A-Za-z0-9._~/%-]*" (operation/key-path k)))
    (is (not (str/starts-with? (operation/key-path k) "//")))))

;; --------------------------------------------------------------------------------------------------------- generated

(deftest keys-are-chosen-as-was-asked
  (let [drawn (fn [distribution n times]
                (let [choose (generated/chooser distribution n)]
                  (frequencies (map choose (range times)))))]
    (is (= (repeat 10 30) (vals (sort (drawn "sequential" 10 300)))))
    (let [uniform (drawn "uniform" 10 100000)]
      (is (= (set (range 10)) (set (keys uniform))))
      (is (every? #(< 9000 (long %) 11000) (vals uniform))))
    (let [zipf     (drawn "zipf" 1000 100000)
          weights  (map #(Math/pow (double %) (- (double generated/zipf-exponent))) (range 1 1001))
          expected (fn [rank] (/ (* 100000.0 (double (nth weights rank))) (double (reduce + weights))))]
      (is (every? #(<= 0 (long %) 999) (keys zipf)))
      (doseq [rank [0 1 2 9]]
        (is (< 0.85 (/ (double (zipf rank)) (double (expected rank))) 1.15) (str "rank " rank))))))

(deftest the-mix-and-the-sizes-are-as-was-asked
  (let [source (generated/source {:count 20000, :keys 5, :distribution "uniform", :value-size 17, :read-share 0.25, :read "local"})
        ops    (vec (take-while some? (repeatedly #(operation/take-next source))))
        {writes true, reads false} (group-by #(.-write? ^Operation %) ops)]
    (is (= 20000 (count ops)))
    (is (< 4600 (count reads) 5400))
    (is (= #{17} (set (map #(.-length ^Operation %) writes))))
    (is (< 1000 (count (set (map value-of writes)))) "values differ")
    (is (= (set (map #(str "/load-" %) (range 5))) (set (map #(.-target ^Operation %) writes))))
    (is (= (set (map #(str "/load-" % "?consistency=local") (range 5))) (set (map #(.-target ^Operation %) reads))))
    (is (= 1.0 (operation/share-done source)))))

;; -------------------------------------------------------------------------------------------------------------- pace

(deftest a-rate-gives-each-operation-its-time
  (let [pace  (pace/start 1000 0.05)
        times (vec (take-while #(<= 0 (long %)) (repeatedly #(pace/due pace))))]
    (is (= 50 (count times)))
    (is (= #{1000000} (set (map - (rest times) times))))
    (is (zero? (long (pace/given-up pace))))))

(defn- at-rate
  "A pace of one operation a millisecond that began so many seconds ago and lasts for so many."
  [began-s lasts-s]
  (let [base (- (System/nanoTime) (long (* 1e9 (double began-s))))]
    (pace/->AtRate 1e6 (+ base (long (* 1e9 (double lasts-s)))) (long-array [base 0 0]))))

(deftest the-backlog-is-bounded
  (let [pace (at-rate 60 1000)
        late (- (System/nanoTime) (long (pace/due pace)))]
    (is (<= 9.9e9 late))
    (is (<= 50000 (long (pace/given-up pace)) 60000))
    (is (< 9.0e9 (long (pace/behind-ns pace)))))
  (testing "long after the end nothing is sent, and all that was due is counted"
    (let [pace (at-rate 9 3)]
      (is (= -1 (pace/due pace)))
      (is (= 3000 (pace/given-up pace)))
      (is (= -1 (pace/due pace)))
      (is (= 3000 (pace/given-up pace))))))

(deftest time-without-input-is-not-held-against-the-servers
  (let [pace (at-rate 2 1000)
        now  (System/nanoTime)]
    (pace/idle pace (- now 3000000000) now)
    (is (<= now (long (pace/due pace))))
    (testing "but for what was due before"
      (let [pace (at-rate 2 1000)]
        (pace/idle pace (- now 500000000) now)
        (is (< (long (pace/due pace)) (- now 1400000000)))))))

;; ----------------------------------------------------------------------------------------------------------- figures

(deftest a-long-run-keeps-a-bounded-number-of-points
  (let [series (reduce tally/with-point {:points [], :width 1, :open nil}
                       (for [i (range 10007)]
                         {:at (inc i), :seconds 1.0, :operations 3, :p50-ms 1.0, :p99-ms (if (= i 5000) 77.0 2.0), :max-ms 3.0}))
        points (tally/series {:series (atom series)})]
    (is (<= 100 (count points) 601))
    (is (= (* 3 10007) (reduce + (map :operations points))))
    (is (= 10007.0 (reduce + (map :seconds points))))
    (is (apply < (map :at points)))
    (is (= 77.0 (reduce max (map :p99-ms points))))))

(deftest latencies-are-those-of-what-was-recorded
  (let [tally (tally/start)]
    (doseq [us (range 1 1001)]
      (tally/answered! tally true "a:1" (* 1000 (long us))))
    (tally/look! tally)
    (tally/answered! tally false "b:2" 5000000)
    (let [{:keys [writes reads operations answers errors]} (tally/summary tally)
          close? (fn [meant found] (< (Math/abs (- (double meant) (double found))) (/ (double meant) 200.0)))]
      (is (= [1000 1 1001] [(:count writes) (:count reads) operations]))
      (is (every? true? (map close? [500.5 500 900 990 999 1000] (map writes [:mean-us :p50-us :p90-us :p99-us :p999-us :max-us]))))
      (is (close? 5000 (:p50-us reads)))
      (is (= {"a:1" 1000, "b:2" 1} answers))
      (is (= {} errors)))))

(deftest progress-tells-rate-p99-and-how-far-it-is
  (let [point {:at 2.0, :seconds 0.5, :operations 500, :p99-ms 1.25}
        line  (fn [& {:as more}] (report/progress-line point (merge {:total 1500, :share nil, :errors 0, :invalid-lines 0, :behind-ns 0} more)))]
    (is (= "2 s  1,500 operations  1,000/s  p99 1.25 ms" (line)))
    (is (str/starts-with? (line :share 0.5) "[############............]  50%  2 s"))
    (is (str/ends-with? (line :errors 2 :invalid-lines 1 :behind-ns 2500000000) "2 errors  1 invalid lines  behind the rate by 2.5 s"))))

;; -------------------------------------------------------------------------------------------------------------- plot

(defn- parsed ^Element [^String xml]
  (-> (DocumentBuilderFactory/newInstance) .newDocumentBuilder (.parse (InputSource. (StringReader. xml))) .getDocumentElement))

(defn- polylines [^Element root]
  (let [^NodeList found (.getElementsByTagName root "polyline")]
    (for [i (range (.getLength found))]
      (for [place (remove str/blank? (str/split (.getAttribute ^Element (.item found (int i)) "points") #" "))]
        (map parse-double (str/split place #","))))))

(deftest a-plot-is-xml-and-inside-its-frame
  (doseq [points [[]
                  [{:at 0.5, :seconds 0.5, :operations 0, :p50-ms 0.0, :p99-ms 0.0, :max-ms 0.0}]
                  [{:at 0.5, :seconds 0.5, :operations 9, :p50-ms 0.02, :p99-ms 0.03, :max-ms 0.04}]
                  (for [i (range 1 200)]
                    {:at (* 0.5 (long i)), :seconds 0.5, :operations (* 37 (long i)), :p50-ms 0.2, :p99-ms (+ 1 (long i)), :max-ms 4321.0})]]
    (let [root  (parsed (plot/svg "a <title> & \"more\"" "b" points))
          lines (polylines root)]
      (is (= "svg" (.getTagName root)))
      (is (str/includes? (.getTextContent root) "a <title> & \"more\""))
      (is (= 4 (count lines)))
      (is (= (max 1 (count points)) (count (first lines))))
      (is (every? (fn [[x y]] (and (<= 79 (double x) 841) (<= 79 (double y) 541))) (apply concat lines))))))
