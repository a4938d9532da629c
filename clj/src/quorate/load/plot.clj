(ns quorate.load.plot
  "Draws the rate and the latencies of a run over time, as SVG. Two panels of lines need no library that brings AWT
  for the same picture."
  (:require [clojure.string :as str])
  (:import (java.util Locale)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^:private width 860.0)
(def ^:private left 80.0)
(def ^:private right 840.0)
(def ^:private panel-height 200.0)

(defn- escaped
  "The text as XML takes it."
  [text]
  (str/escape (str text) {\& "&amp;", \< "&lt;", \> "&gt;", \" "&quot;"}))

(defn- fixed ^String [x]
  (String/format Locale/ROOT "%.1f" (to-array [(double x)])))

(defn- label
  "A number for an axis: no more digits than it needs."
  [^double x]
  (let [text (cond (<= 100.0 x) (String/format Locale/ROOT "%,.0f" (to-array [x]))
                   (<= 1.0 x)   (String/format Locale/ROOT "%.1f" (to-array [x]))
                   :else        (String/format Locale/ROOT "%.3f" (to-array [x])))]
    (if (str/includes? text ".") (str/replace text #"\.?0+$" "") text)))

(defn- text-at [x y anchor content]
  (str "<text x=\"" (fixed x) "\" y=\"" (fixed y) "\" text-anchor=\"" anchor "\">" (escaped content) "</text>\n"))

(defn- rule [x1 y1 x2 y2]
  (str "<line x1=\"" (fixed x1) "\" y1=\"" (fixed y1) "\" x2=\"" (fixed x2) "\" y2=\"" (fixed y2) "\" stroke=\"#ddd\"/>\n"))

(defn nice-step
  "A step of 1, 2 or 5 times a power of ten that divides `most` into about five."
  ^double [^double most]
  (let [rough (/ (max most 1e-6) 5.0)
        power (Math/pow 10.0 (Math/floor (Math/log10 rough)))
        times (/ rough power)]
    (* power (if (<= times 1.0) 1.0 (if (<= times 2.0) 2.0 (if (<= times 5.0) 5.0 10.0))))))

(defn- steps
  "The marks of an axis from 0 to `most`."
  [^double most]
  (let [step (nice-step most)]
    (mapv #(* step (double %)) (range 0 (inc (long (Math/ceil (/ most step))))))))

(defn- decades
  "The powers of ten around the values, for an axis in logarithms."
  [values]
  (let [values (filter pos? values)
        low    (long (Math/floor (Math/log10 (double (reduce min 1.0 values)))))
        high   (long (Math/ceil (Math/log10 (double (reduce max 1.0 values)))))]
    (mapv #(Math/pow 10.0 (double %)) (range low (inc (max high (inc low)))))))

(defn- scale
  "A function that maps `from` to `to` onto the places `at` to `until`."
  [from to at until]
  (let [from (double from), to (double to), at (double at), until (double until)
        wide (max 1e-9 (- to from))]
    (fn [x] (+ at (* (- until at) (/ (- (double x) from) wide))))))

(defn- polyline [colour places]
  (str "<polyline fill=\"none\" stroke=\"" colour "\" stroke-width=\"1.5\" points=\""
       (str/join " " (for [[x y] places] (str (fixed x) "," (fixed y))))
       "\"/>\n"))

(defn- panel
  "One panel with its top at `top`: marks on both axes and a line for each of `lines`, `{:name :colour :values}`."
  [{:keys [title top times time-marks marks place-of lines]}]
  (let [top    (double top)
        bottom (+ top (double panel-height))
        marks  (mapv double marks)
        x      (scale 0 (peek time-marks) left right)
        y      (comp (scale (place-of (first marks)) (place-of (peek marks)) bottom top) place-of)]
    (str (text-at left (- top 10.0) "start" title)
         (str/join (for [mark marks]
                     (str (rule left (y mark) right (y mark))
                          (text-at (- (double left) 6.0) (+ 4.0 (double (y mark))) "end" (label mark)))))
         (str/join (for [mark time-marks]
                     (str (rule (x mark) top (x mark) bottom)
                          (text-at (x mark) (+ bottom 16.0) "middle" (label mark)))))
         (str/join (for [{:keys [colour values]} lines]
                     (polyline colour (map (fn [t v] [(x t) (y v)]) times values))))
         (str/join (map-indexed (fn [i {:keys [name colour]}]
                                  (str "<g fill=\"" colour "\">" (text-at (- (double right) (* 60.0 (long i))) (- top 10.0) "end" name) "</g>\n"))
                                (reverse lines))))))

(defn- rate [{:keys [operations seconds]}]
  (/ (double operations) (max 1e-9 (double seconds))))

(defn svg
  "The picture of the points of `quorate.load.tally/series`, with a title and one line below it."
  ^String [title subtitle points]
  (let [points     (vec (or (seq points) [{:at 0.0, :seconds 1.0, :operations 0, :p50-ms 0.0, :p99-ms 0.0, :max-ms 0.0}]))
        times      (mapv :at points)
        busy       (filterv #(pos? (long (:operations %))) points)
        time-marks (steps (double (peek times)))
        rates      (mapv rate points)
        least      (double (reduce min 1.0 (filter pos? (map :p50-ms busy))))]
    (str "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
         "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" (long (double width)) "\" height=\"580\" font-family=\"sans-serif\" font-size=\"12\">\n"
         "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
         "<g font-size=\"16\">" (text-at left 26.0 "start" title) "</g>\n"
         (text-at left 46.0 "start" subtitle)
         (panel {:title "operations a second", :top 80.0, :times times, :time-marks time-marks, :marks (steps (double (reduce max 1.0 rates))),
                 :place-of identity, :lines [{:name "rate", :colour "#1f77b4", :values rates}]})
         (panel {:title "latency, ms", :top 340.0, :times (mapv :at busy), :time-marks time-marks
                 :marks (decades (mapcat (juxt :p50-ms :max-ms) busy)), :place-of #(Math/log10 (max least (double %)))
                 :lines (for [[k name colour] [[:p50-ms "p50" "#2ca02c"] [:p99-ms "p99" "#ff7f0e"] [:max-ms "max" "#d62728"]]]
                          {:name name, :colour colour, :values (map k busy)})})
         (text-at right 574.0 "end" "seconds")
         "</svg>\n")))
