(ns quorate.load.operation
  "One operation: a PUT or a GET of a key, ready to be sent. And where operations come from."
  (:import (java.nio.charset StandardCharsets)))

(set! *warn-on-reflection* true)
(set! *unchecked-math* :warn-on-boxed)

;; `write?` tells a PUT from a GET; `target` is the request target; the body is `length` bytes of `octets` from `offset`; `line` is the
;; number of the line that it came from, 0 when it was generated; `after`, when not nil, is waited for before it is sent, and `done`
;; is called when it is over, whatever came of it.
(deftype Operation [^boolean write? ^String target ^bytes octets ^long offset ^long length ^long line after done])

(defprotocol Source
  (take-next [source]
    "The next Operation, for one of many threads; nil at the end.")
  (share-done [source]
    "Which share of all there is has been taken, 0 to 1; nil when nobody knows."))

(defn- plain?
  "Whether a byte of a key stands for itself in a path. A slash does, but for the first byte, where two would begin a host."
  [^long octet ^long at]
  (or (<= 97 octet 122) (<= 65 octet 90) (<= 48 octet 57)
      (= octet 45) (= octet 46) (= octet 95) (= octet 126)
      (and (= octet 47) (pos? at))))

(def ^:private ^String hex-digits "0123456789ABCDEF")

(defn- append-escaped [^StringBuilder out ^long octet]
  (doto out
    (.append \%)
    (.append (.charAt hex-digits (int (bit-shift-right octet 4))))
    (.append (.charAt hex-digits (int (bit-and octet 15))))))

(defn path
  "The path of the key whose bytes are `octets` from `from` to `to`, escaped as the ring server decodes it."
  ^String [^bytes octets ^long from ^long to]
  (let [out (StringBuilder. (+ 16 (- to from)))]
    (.append out \/)
    (loop [at from]
      (when (< at to)
        (let [octet (bit-and 0xff (aget octets at))]
          (if (plain? octet (- at from))
            (.append out (char octet))
            (append-escaped out octet))
          (recur (inc at)))))
    (str out)))

(defn key-path
  "The path of a key."
  ^String [^String k]
  (let [octets (.getBytes k StandardCharsets/UTF_8)]
    (path octets 0 (alength octets))))
