(ns quorate.impl.registered
  "Callbacks that wait for the entry with a user's id to be applied here, whoever sent it: `register-callback`.

  They are kept by id until the entry comes, their time is over, or the node ends; each is answered once."
  (:require [quorate.impl.errors :as errors]
            [quorate.impl.runner :as runner])
  (:import (clojure.lang Atom)
           (java.util.concurrent Future RejectedExecutionException ScheduledThreadPoolExecutor ThreadFactory TimeUnit)
           (java.util.concurrent.atomic AtomicBoolean)))

(set! *warn-on-reflection* true)

(def ^:const waiting-max "Callbacks registered on one node that wait." 65536)
(def ^:const default-ms "How long a callback waits that was registered without a time (fluree's number)." 5000)

(deftype Waiter [callback ^AtomicBoolean answered timer])
(deftype Registered [waiting timers])

(defn- timers
  "One daemon thread for all the times of a node."
  [thread-name]
  (doto (ScheduledThreadPoolExecutor.
         1 (reify ThreadFactory
             (^Thread newThread [_ ^Runnable task] (runner/daemon thread-name task))))
    (.setRemoveOnCancelPolicy true)))

;; Who waits at first, and as long as this is the atom's value nobody need be looked for.
(def ^:private nobody {:n 0, :by-id {}})

(defn registered
  "Nobody waits. `thread-name` is that of the thread that looks after the times; it starts with the first callback."
  [thread-name]
  (Registered. (atom nobody) (delay (timers thread-name))))

(defn ids
  "How many callbacks wait for which id; nil when none does."
  [^Registered r]
  (not-empty (update-vals (:by-id @(.-waiting r)) count)))

(defn- without
  "`all` without `waiter` for `id`."
  [{:keys [by-id] :as all} id waiter]
  (let [before (get by-id id)
        after  (filterv #(not (identical? waiter %)) before)]
    (assoc all
           :n     (- (long (:n all)) (- (count before) (count after)))
           :by-id (if (seq after) (assoc by-id id after) (dissoc by-id id)))))

(defn- answer!
  "Hands `answer` to `pass!` for `waiter`, unless it has been answered."
  [^Waiter waiter pass! answer]
  (when (.compareAndSet ^AtomicBoolean (.-answered waiter) false true)
    (some-> ^Future @(.-timer waiter) (.cancel false))
    (pass! (.-callback waiter) answer)))

(defn- timed-out [id]
  (errors/error :raft/command-timeout "Command timed out." {:operation :new-command, :id id}))

(defn- too-many [id]
  (errors/error :raft/overloaded (str waiting-max " callbacks are registered on this node and wait.")
                {:operation :register-callback, :id id, :limit waiting-max}))

(defn- ended [id]
  (errors/error :raft/shutdown "Raft server shut down." {:operation :new-command, :id id}))

(defn- schedule! [^Registered r ^Waiter waiter id timeout-ms pass!]
  (let [over! (fn [outcome]
                (swap! (.-waiting r) without id waiter)
                (answer! waiter pass! (outcome id)))
        ^ScheduledThreadPoolExecutor timers @(.-timers r)]
    (try
      (reset! (.-timer waiter) (.schedule timers ^Runnable (fn [] (over! timed-out)) (long timeout-ms) TimeUnit/MILLISECONDS))
      (catch RejectedExecutionException _
        (over! ended)))))

(defn- add [{:keys [n] :as all} id waiter]
  (if (>= (long n) waiting-max)
    all
    (-> all
        (update :n inc)
        (update-in [:by-id id] (fnil conj []) waiter))))

(defn register!
  "Has `(pass! callback answer)` called once: with the result of the entry with `id` when that is applied here, or an
  ex-info: `:raft/command-timeout` after `timeout-ms`, `:raft/shutdown` at the end, `:raft/overloaded` at once when too many
  wait."
  [^Registered r id timeout-ms callback pass!]
  (let [waiter (Waiter. callback (AtomicBoolean.) (atom nil))
        before (swap-vals! (.-waiting r) add id waiter)]
    (if (identical? (first before) (second before))
      (pass! callback (too-many id))
      (schedule! r waiter id timeout-ms pass!))))

(defn waiting?
  "True when a callback waits for any id. Cheap: asked for each entry."
  [^Registered r]
  (let [all (.deref ^Atom (.-waiting r))]
    (and (not (identical? nobody all))
         (pos? (long (:n all))))))

(defn- take! [^Registered r id]
  (let [[before _] (swap-vals! (.-waiting r)
                               (fn [{:keys [n by-id] :as all}]
                                 (assoc all :n (- (long n) (count (get by-id id))) :by-id (dissoc by-id id))))]
    (get-in before [:by-id id])))

(defn applied!
  "The entry with `id` was applied here and gave `result`."
  [^Registered r id result pass!]
  (when (contains? (:by-id @(.-waiting r)) id)
    (run! #(answer! % pass! result) (take! r id))))

(defn stop!
  "Answers all who wait with ex-info `:raft/shutdown`, and ends the thread."
  [^Registered r pass!]
  (let [[before _] (reset-vals! (.-waiting r) nobody)]
    (doseq [[id waiters] (:by-id before), waiter waiters]
      (answer! waiter pass! (ended id))))
  (.shutdownNow ^ScheduledThreadPoolExecutor @(.-timers r)))
