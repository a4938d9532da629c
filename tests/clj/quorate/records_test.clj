(ns quorate.records-test
  "What a poll brings, byte by byte, and what is made of it."
  (:require [clojure.test :refer [deftest is]]
            [quorate.impl.records :as records]
            [quorate.impl.wire :as wire])
  (:import (java.nio ByteBuffer)
           (quorate.impl Records Span)
           (quorate.impl.records Entry)))

(set! *warn-on-reflection* true)

(defn- direct
  "A direct buffer with `chunks` in it, and rubbish behind; and how many bytes they are."
  [& chunks]
  (let [n   (reduce + (map #(alength ^bytes %) chunks))
        buf (ByteBuffer/allocateDirect (+ 64 n))]
    (doseq [chunk chunks] (.put buf ^bytes chunk))
    (.put buf (byte-array 64 (unchecked-byte 0x55)))
    [buf n]))

(defn- record ^bytes [type & fields]
  (let [body (wire/sink)]
    (wire/u8! body type)
    (doseq [f fields] (f body))
    (wire/built (wire/blob! (wire/sink) (wire/built body)))))

(defn- u64 [n] #(wire/u64! % n))
(defn- u8 [n] #(wire/u8! % n))
(defn- text [s] #(wire/raw! % (wire/utf-8 s)))

(defn- body-of [^Entry e]
  (let [^Span body (.-body e)]
    (vec (java.util.Arrays/copyOfRange ^bytes (.bytes body) (.from body) (.to body)))))

(deftest events-are-taken-apart-in-order
  (let [seen (atom [])
        sink (reify records/Events
               (completion! [_ ticket status payload] (swap! seen conj [:completion ticket status (String. ^bytes payload "UTF-8")]))
               (leader! [_ edn] (swap! seen conj [:leader edn]))
               (log! [_ level target message] (swap! seen conj [:log level target message]))
               (watch! [_ watch event] (swap! seen conj [:watch watch (vec event)])))
        [buf n] (direct (record 1 (u64 7) (u8 0) (text "result"))
                        (record 2 (text "{:event :become-leader}"))
                        (record 9 (text "a type that a later version knows"))
                        (record 1 (u64 -1) (u8 5) (text ""))
                        (record 3 (u8 2) #(wire/u16! % 3) (text "nodwörld"))
                        (record 4 (u64 3) (u8 4) (u64 12)))]
    (is (false? (records/dispatch-events! buf n sink)))
    (is (= [[:completion 7 0 "result"]
            [:leader "{:event :become-leader}"]
            [:completion -1 5 ""]
            [:log 2 "nod" "wörld"]
            [:watch 3 [4 12 0 0 0 0 0 0 0]]]
           @seen))
    (let [[buf n] (direct (record 2 (text "{}")) (record 5))]
      (is (true? (records/dispatch-events! buf n sink))))))

(deftest entries-snapshots-and-installs-are-taken-apart
  (let [seen (atom [])
        sink (reify records/Applies
               (entry! [_ e]
                 (let [^Entry e e]
                   (swap! seen conj [(.-index e) (.-term e) (.-time_ms e) (.-seed e) (.-local? e) (.-node e) (.-incarnation e)
                                     (.-sequence e) (body-of e)])))
               (snapshot! [_ ticket index path] (swap! seen conj [:snapshot ticket index path]))
               (install! [_ ticket index path] (swap! seen conj [:install ticket index path])))
        [buf n] (direct (record 1 (u64 1) (u64 2) (u64 3) (u64 -4) (u8 1) (u64 5) (u64 6) (u64 7) (u8 42))
                        (record 1 (u64 2) (u64 2) (u64 3) (u64 4) (u8 0) (u64 5) (u64 6) (u64 8))
                        (record 2 (u64 9) (u64 2) (text "/tmp/é"))
                        (record 3 (u64 10) (u64 1) (text "in")))]
    (is (false? (records/dispatch-applies! (Records.) buf n sink)))
    (is (= [[1 2 3 -4 true 5 6 7 [42]] [2 2 3 4 false 5 6 8 []] [:snapshot 9 2 "/tmp/é"] [:install 10 1 "in"]] @seen))
    (let [[buf n] (direct (record 4))]
      (is (true? (records/dispatch-applies! (Records.) buf n sink))))))
