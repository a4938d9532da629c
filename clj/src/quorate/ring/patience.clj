(ns quorate.ring.patience
  "Ends connections that take their time, so that slow clients hold up themselves only.

  A connection reads a head, then a body, waits for its answer, sends it, and begins anew. Jetty's idle timeout ends it when nothing
  moves at all; here it ends when a head, a body or an answer has not come to its end in time although bytes drip. When all connections
  that there may be are open, those go that have waited longest for a head: idle ones, and those whose head drips."
  (:require [clojure.tools.logging :as log])
  (:import (java.util.concurrent ConcurrentHashMap Executors ScheduledExecutorService ThreadFactory TimeUnit)
           (java.util.function BiFunction)
           (org.eclipse.jetty.io Connection Connection$Listener EndPoint)
           (org.eclipse.jetty.server HttpChannel$Listener HttpConnection Request)))

(set! *warn-on-reflection* true)

(def ^:private ^:const look-ms "How often connections are looked at, in milliseconds." 200)

(def ^:private ^:const made-room
  "Of so many connections one is closed when all are open."
  16)

;; Where a connection is: its phase, since when (nanoseconds), how many bytes had come by then, and whether any has come since.
(defrecord Place [phase ^long since ^long bytes ^boolean heard])

(defn- now ^long [] (System/nanoTime))

(defn- bytes-in ^long [^EndPoint end-point]
  (let [connection (.getConnection end-point)]
    (if (instance? HttpConnection connection)
      (.getBytesIn ^HttpConnection connection)
      0)))

(defn- awaiting-head [end-point]
  (->Place :head (now) (bytes-in end-point) false))

(defn- end-point ^EndPoint [^Request request]
  (.getEndPoint (.getHttpChannel request)))

(defn- move
  "Takes the connection to `phase`, when it is in one of `from`."
  [^ConcurrentHashMap places request from phase]
  (.computeIfPresent places (end-point request)
                     (reify BiFunction
                       (apply [_ _ place]
                         (if (contains? from (:phase place))
                           (->Place phase (now) 0 false)
                           place)))))

(defn- connections ^Connection$Listener [^ConcurrentHashMap places]
  (reify Connection$Listener
    (onOpened [_ connection]
      (let [end-point (.getEndPoint ^Connection connection)]
        (.put places end-point (awaiting-head end-point))))
    (onClosed [_ connection]
      (.remove places (.getEndPoint ^Connection connection)))))

(defn- exchanges ^HttpChannel$Listener [^ConcurrentHashMap places]
  (reify HttpChannel$Listener
    (onRequestBegin [_ request] (move places request #{:head} :body))
    (onRequestEnd [_ request] (move places request #{:body} :answer))
    (onResponseBegin [_ request] (move places request #{:body :answer} :send))
    (onComplete [_ request]
      (let [end-point (end-point request)]
        (.computeIfPresent places end-point (reify BiFunction (apply [_ _ _] (awaiting-head end-point))))))))

(defn- noted
  "The place after a look: of a head, from its first byte on the time counts."
  [^ConcurrentHashMap places end-point {:keys [phase bytes heard] :as place}]
  (if (and (= :head phase) (not heard) (< (long bytes) (bytes-in end-point)))
    (let [begun (->Place :head (now) bytes true)]
      ;; Unless it has moved on meanwhile.
      (if (.replace places end-point place begun) begun place))
    place))

(defn- late? [{:keys [header-ms body-ms send-ms]} {:keys [phase since heard]}]
  (let [limit (case phase
                :head   (when heard header-ms)
                :body   body-ms
                :answer nil
                :send   send-ms)]
    (boolean (and limit (< (* 1000000 (long limit)) (- (now) (long since)))))))

(defn- make-room
  "Closes some of those that wait for a head, the longest first."
  [^ConcurrentHashMap places ^long most]
  (when (<= most (.size places))
    (->> places
         (filter #(= :head (:phase (val %))))
         (sort-by #(:since (val %)))
         (take (max 1 (quot most (long made-room))))
         (run! #(.close ^EndPoint (key %))))))

(defn- look [^ConcurrentHashMap places {:keys [connections-max] :as limits}]
  (doseq [[end-point place] places]
    (when (late? limits (noted places end-point place))
      (.close ^EndPoint end-point)))
  (make-room places (long connections-max)))

(defn- looker ^ScheduledExecutorService []
  (Executors/newSingleThreadScheduledExecutor
   (reify ThreadFactory
     (newThread [_ task]
       (doto (Thread. task "quorate-patience")
         (.setDaemon true))))))

(defn start
  "Begins to look at the connections: `:header-ms` from the first byte of a request to the end of its headers, `:body-ms` for its body,
  `:send-ms` for sending the answer, `:connections-max` at a time. Returns

    :listeners  beans for the connectors
    :stop       a function of no arguments"
  [limits]
  (let [places (ConcurrentHashMap.)
        looker (looker)]
    (.scheduleWithFixedDelay looker
                             ^Runnable (fn []
                                         (try (look places limits)
                                              (catch Exception thrown
                                                ;; The next look comes all the same.
                                                (log/warn thrown "Looking at the connections failed."))))
                             (long look-ms) (long look-ms) TimeUnit/MILLISECONDS)
    {:listeners [(connections places) (exchanges places)]
     :stop      #(.shutdownNow looker)}))
