(ns quorate.ring.logging
  "The server's log: one line per event on stderr, by java.util.logging, Jetty's lines included; unless the JVM was told
  otherwise. Jetty chooses its log when its classes load, so this namespace acts when it is loaded, and must be the
  first that the main one requires."
  (:require [clojure.java.io :as io])
  (:import (java.util.logging LogManager)))

(set! *warn-on-reflection* true)

(defn- default-property [property value]
  (when-not (System/getProperty property)
    (System/setProperty property value)))

(defn- configured? []
  (or (System/getProperty "java.util.logging.config.file")
      (System/getProperty "java.util.logging.config.class")))

(defn configure
  "Sets what has not been set."
  []
  (default-property "org.eclipse.jetty.util.log.class" "org.eclipse.jetty.util.log.JavaUtilLog")
  (default-property "org.eclipse.jetty.util.log.announce" "false")
  (default-property "clojure.tools.logging.factory" "clojure.tools.logging.impl/jul-factory")
  (when-not (configured?)
    (with-open [settings (io/input-stream (io/resource "quorate/logging.properties"))]
      (.readConfiguration (LogManager/getLogManager) settings))))

(configure)
