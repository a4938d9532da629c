(ns quorate.impl.session
  "The native methods, with their exceptions turned into ex-infos. The only namespace that names `quorate.jni`."
  (:require [quorate.impl.codec :as codec]
            [quorate.impl.errors :as errors]
            [quorate.impl.wire :as wire])
  (:import (java.nio ByteBuffer)
           (quorate.jni Native NativeLibrary QuorateException)))

(set! *warn-on-reflection* true)

(defmacro ^:private translated [& body]
  `(try
     ~@body
     (catch QuorateException e#
       (throw (errors/from-code (.code e#) (.getMessage e#))))))

(defn open
  "Loads the native library when that has not been done, and opens the engine with `config`, a map; returns its handle. Throws ex-info with what is wrong."
  ^long [config]
  (translated
    (NativeLibrary/load)
    (Native/open (codec/text-bytes config))))

(defn attach!
  "The direct `buffer` becomes where polls of `queue` put their records."
  [^long handle queue ^ByteBuffer buffer]
  (translated (Native/attach handle (int queue) buffer)))

(defn submit!
  "Submits `body`; returns the ticket. Throws ex-info `:raft/shutdown`, `:raft/too-large`, `:raft/overloaded` or
  `:raft/invalid`, and then nothing was accepted."
  [handle kind ^bytes body timeout-ms]
  (translated (Native/submit (long handle) (int kind) body (long timeout-ms))))

(defn submit-bytes!
  "As [[submit!]], of a command that is the byte array `entry`, [[codec/check-bytes]]."
  ^long [^long handle ^bytes entry ^long timeout-ms]
  (translated (Native/submitPrefixed handle (int wire/command) (int codec/format-bytes) entry timeout-ms)))

(defn poll!
  "Bytes of records that the buffer of `queue` has now; 0 after `wait-ms` without any; -1 when the queue is closed; -n when
  the next record needs a buffer of n bytes."
  [handle queue acknowledged wait-ms]
  (translated (Native/poll (long handle) (int queue) (long acknowledged) (long wait-ms))))

(defn control
  "The engine's answer to operation `op`, at once."
  ^bytes [handle op ^bytes body]
  (translated (Native/control (long handle) (int op) body)))

(defn close!
  "Closes the engine; may be called again."
  [handle]
  (translated (Native/close (long handle))))

(defn version
  "The native library's version, such as \"0.1.0\"."
  []
  (translated
    (NativeLibrary/load)
    (Native/version)))
