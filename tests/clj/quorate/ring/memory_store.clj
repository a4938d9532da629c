(ns quorate.ring.memory-store
  "A store in a map, for tests of the handler alone."
  (:require [quorate.ring.store :as store])
  (:import (java.util Arrays)
           (java.util.concurrent CompletableFuture)))

(defn- text [^bytes k] (String. k "UTF-8"))

(defn- holds? [entries [kind k revision]]
  (let [entry (entries (text k))]
    (case kind
      :exists        (some? entry)
      :absent        (nil? entry)
      :mod-revision (= revision (:revision entry)))))

(defn- written [entries revision [kind k ^bytes v]]
  (case kind
    :put    (assoc entries (text k) {:value (Arrays/copyOf v (alength v)) :revision revision})
    :delete (dissoc entries (text k))))

(defrecord MemoryStore [state fault]
  store/Store
  (fetch [_ k consistency]
    (or (when-let [fault @fault] (fault :fetch consistency))
        (CompletableFuture/completedFuture (get-in @state [:entries (text k)]))))
  (transact [_ {:keys [then else] guards :if}]
    (or (when-let [fault @fault] (fault :transact nil))
        (let [result (atom nil)]
          (swap! state
                 (fn [{:keys [entries revision]}]
                   (let [revision  (inc revision)
                         succeed?  (every? #(holds? entries %) guards)]
                     (reset! result {:succeeded? succeed? :revision revision})
                     {:revision revision
                      :entries  (reduce #(written %1 revision %2) entries (if succeed? then else))})))
          (CompletableFuture/completedFuture @result))))
  (status [_] {:leader "localhost:3000"})
  (metrics [_] "quorate_test 1\n"))

(defn memory-store
  "An empty store. `fault` is an atom: nil, or a function that may return a future in the store's stead."
  []
  (->MemoryStore (atom {:revision 0 :entries {}}) (atom nil)))
