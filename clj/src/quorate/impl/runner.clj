(ns quorate.impl.runner
  "A daemon thread that runs tasks in the order in which they came: where user code runs, off the threads that poll.

  A task that throws is logged and hurts nobody. The queue's bound is its owner's business for callbacks (the window of
  `quorate.impl.pending`) and a number for everything else."
  (:require [clojure.tools.logging :as log])
  (:import (java.util.concurrent LinkedBlockingQueue)
           (java.util.concurrent.atomic AtomicBoolean)))

(set! *warn-on-reflection* true)

(deftype Runner [^Thread thread ^LinkedBlockingQueue tasks ^AtomicBoolean stopping])

(defmacro guarded
  "Runs `body`; logs whatever it throws, with `what` was being done, and returns nil then."
  [what & body]
  `(try
     ~@body
     (catch Throwable t#
       (log/error t# ~what)
       nil)))

(defn daemon
  "A daemon thread named `thread-name` that will run `f`; not started."
  ^Thread [^String thread-name ^Runnable f]
  (doto (Thread. f thread-name)
    (.setDaemon true)))

(defn- run-loop [^LinkedBlockingQueue tasks]
  (loop []
    (let [task (.take tasks)]
      (when-not (identical? ::end task)
        (guarded "A callback threw." (task))
        (recur)))))

(defn runner
  "A running thread named `thread-name` whose queue holds at most `capacity` tasks."
  [thread-name capacity]
  (let [tasks  (LinkedBlockingQueue. (int capacity))
        thread (daemon thread-name (fn [] (run-loop tasks)))]
    (.start thread)
    (Runner. thread tasks (AtomicBoolean.))))

(defn offer!
  "Queues `task`, a function without arguments. Returns false when the queue is full or the runner is stopping; never waits."
  [^Runner r task]
  (let [^LinkedBlockingQueue tasks (.-tasks r)
        stopping?                  (fn [] (.get ^AtomicBoolean (.-stopping r)))]
    (boolean
     (and (not (stopping?))
          (.offer tasks task)
          ;; What came in behind the end would never run.
          (not (and (stopping?) (.remove tasks task)))))))

(defn backlog
  "Tasks that wait."
  ^long [^Runner r]
  (.size ^LinkedBlockingQueue (.-tasks r)))

(defn stopping?
  "True when the runner takes no more tasks."
  [^Runner r]
  (.get ^AtomicBoolean (.-stopping r)))

(defn thread
  "The thread that the tasks run on."
  ^Thread [^Runner r]
  (.-thread r))

(defn mine?
  "True on the runner's own thread."
  [^Runner r]
  (identical? (Thread/currentThread) (.-thread r)))

(defn stop!
  "Takes no more tasks, runs those that are queued, and waits up to `wait-ms` for that. Returns true when the thread has
  ended; from the runner's own thread it returns false at once."
  [^Runner r ^long wait-ms]
  (when (.compareAndSet ^AtomicBoolean (.-stopping r) false true)
    (let [^LinkedBlockingQueue tasks (.-tasks r)]
      (when-not (.offer tasks ::end)
        (.start (daemon (str (.getName (thread r)) "-end") (fn [] (.put tasks ::end)))))))
  (if (mine? r)
    false
    (do (when (pos? wait-ms)            ; joining for 0 ms would be for ever
          (.join (thread r) wait-ms))
        (not (.isAlive (thread r))))))
