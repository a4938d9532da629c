(ns quorate.impl.lanes
  "Bounded queues of tasks that run in order, each beside the others, on as many daemon threads as are busy at a time. So a task
  that takes long holds up its own lane only, and an idle lane costs no thread."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.runner :as runner])
  (:import (java.util.concurrent Executors ExecutorService LinkedBlockingQueue RejectedExecutionException ThreadFactory TimeUnit)
           (java.util.concurrent.atomic AtomicBoolean AtomicLong)))

(set! *warn-on-reflection* true)

(def ^:const lane-max "Tasks that wait in one lane." 1024)

(deftype Pool [^ExecutorService executor ^ThreadLocal mine])

(defn pool
  "Where lanes run: threads named `thread-name` and a number."
  [thread-name]
  (let [numbers (AtomicLong.)
        mine    (ThreadLocal.)
        factory (reify ThreadFactory
                  (^Thread newThread [_ ^Runnable task]
                    (runner/daemon (str thread-name "-" (.incrementAndGet numbers))
                                   (fn []
                                     (.set mine true)
                                     (.run task)))))]
    (Pool. (Executors/newCachedThreadPool factory) mine)))

(defn mine?
  "True on a thread of `pool`."
  [^Pool pool]
  (some? (.get ^ThreadLocal (.-mine pool))))

(defn stop!
  "Takes no more tasks, runs those that are queued, and waits up to `wait-ms` for that; from a thread of the pool itself it
  does not wait."
  [^Pool pool ^long wait-ms]
  (let [^ExecutorService executor (.-executor pool)]
    (.shutdown executor)
    (when-not (mine? pool)
      (.awaitTermination executor wait-ms TimeUnit/MILLISECONDS))))

(deftype Lane [^Pool pool ^LinkedBlockingQueue tasks ^AtomicBoolean running])

(defn lane
  "An empty lane of `pool`."
  [pool]
  (Lane. pool (LinkedBlockingQueue. (int lane-max)) (AtomicBoolean.)))

(defn- drain! [^Lane lane]
  (let [^LinkedBlockingQueue tasks (.-tasks lane)
        ^AtomicBoolean running     (.-running lane)]
    (loop []
      (if-let [task (.poll tasks)]
        (do (runner/guarded "A task threw." (task))
            (recur))
        (do (.set running false)
            ;; One may have come after the last poll and have seen that this thread was running.
            (when (and (not (.isEmpty tasks)) (.compareAndSet running false true))
              (recur)))))))

(defn- run-soon!
  "Has the lane's tasks run; false when the pool takes none any more."
  [^Lane lane]
  (try
    (.execute ^ExecutorService (.-executor ^Pool (.-pool lane)) ^Runnable (fn [] (drain! lane)))
    true
    (catch RejectedExecutionException e
      (log/trace e "A task came after the end.")
      (.set ^AtomicBoolean (.-running lane) false)
      false)))

(defn offer!
  "Queues `task`, a function without arguments. Returns `:taken`, or `:full`, or `:ended` when the pool takes no more; never
  waits."
  [^Lane lane task]
  (cond
    (.isShutdown ^ExecutorService (.-executor ^Pool (.-pool lane))) :ended
    (not (.offer ^LinkedBlockingQueue (.-tasks lane) task))         :full
    (.compareAndSet ^AtomicBoolean (.-running lane) false true)     (if (run-soon! lane) :taken :ended)
    :else                                                           :taken))
