(ns quorate.impl.tokens
  "Which keywords and symbols can be read back.

  Clojure makes a keyword or symbol of any string, `(keyword \"a b\")`, but prints it bare, so that it reads as something
  else or not at all. Here a token is *proven* readable: ordinary ones by their characters, odd ones by reading them."
  (:require [clojure.edn :as edn])
  (:import (java.nio.charset StandardCharsets)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

(def ^{:private true, :tag 'booleans} first-char
  (let [table (boolean-array 128)]
    (doseq [c "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ*!_?$%&=<>"]
      (aset table (int c) true))
    table))

(def ^{:private true, :tag 'booleans} later-char
  (let [table (aclone first-char)]
    (doseq [c "0123456789+-.'#"]
      (aset table (int c) true))
    table))

(defn- ordinary?
  "True when `part`, the namespace or the name of a token, has only characters that never need a second look."
  [^String part]
  (let [n (.length part)]
    (and (pos? n)
         (let [c (int (.charAt part 0))]
           (and (< c 128) (aget first-char c)))
         (loop [i 1]
           (or (= i n)
               (let [c (int (.charAt part i))]
                 (and (< c 128) (aget later-char c) (recur (unchecked-inc-int i)))))))))

(defn- survives-utf-8? [^String text]
  (= text (String. (.getBytes text StandardCharsets/UTF_8) StandardCharsets/UTF_8)))

(defn- reads-back? [token text]
  (and (survives-utf-8? text)
       (= [token] (try (edn/read-string (str "[" text "]"))
                       (catch RuntimeException _ nil)))))

(def ^:private symbols-that-are-not
  #{"nil" "true" "false"})

(defn readable-keyword?
  "True when `k` as EDN text reads back as `k`."
  [^clojure.lang.Keyword k]
  (let [ns-part (namespace k)]
    (or (and (or (nil? ns-part) (ordinary? ns-part))
             (ordinary? (name k)))
        (reads-back? k (str k)))))

(defn readable-symbol?
  "True when `s` as EDN text reads back as `s`."
  [^clojure.lang.Symbol s]
  (let [ns-part (namespace s)]
    (or (and (or (nil? ns-part) (ordinary? ns-part))
             (ordinary? (name s))
             (not (contains? symbols-that-are-not (name s))))
        (reads-back? s (str s)))))

(defn readable-tag?
  "True when `#tag nil` reads back as a tagged literal with the symbol `tag`: a readable symbol that begins with a letter."
  [^clojure.lang.Symbol tag]
  (and (readable-symbol? tag)
       (Character/isLetter (.charAt (str tag) 0))))
