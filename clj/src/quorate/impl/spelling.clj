(ns quorate.impl.spelling
  "The known keyword that a misspelt one probably means."
  (:require [clojure.string :as str]))

(set! *warn-on-reflection* true)

(defn- next-row
  "The row after `row`, which compares all of `b` with what comes before the letter `ca`, the `i`th."
  [row ^long i ca b]
  (reduce (fn [cells [^long j cb]]
            (let [changed (long (nth row j))
                  dropped (long (nth row (inc j)))
                  added   (long (peek cells))]
              (conj cells (min (inc dropped) (inc added) (if (= ca cb) changed (inc changed))))))
          [(inc i)]
          (map-indexed vector b)))

(defn- edit-distance
  "How many letters to add, drop or change to make `b` of `a` (Levenshtein)."
  [a b]
  (peek (reduce (fn [row [i ca]] (next-row row i ca b))
                (vec (range (inc (count b))))
                (map-indexed vector a))))

(defn nearest
  "The one of `candidates`, keywords, whose name is nearest to that of the keyword `k`, or that goes on where `k` ends; nil
  when none is near."
  [k candidates]
  (let [text     (name k)
        distance (fn [candidate]
                   (if (str/starts-with? (name candidate) text)
                     1
                     (edit-distance text (name candidate))))
        best     (apply min-key distance (sort candidates))]
    (when (<= (long (distance best)) (max 2 (quot (count text) 3)))
      best)))
