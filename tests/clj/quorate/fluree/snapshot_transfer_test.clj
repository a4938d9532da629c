(ns quorate.fluree.snapshot-transfer-test
  "Users' snapshots on their way from node to node, over the native transport: three nodes, one of which lags or begins with
  an empty disk."
  (:require [clojure.java.io :as io]
            [clojure.test :refer [deftest is testing]]
            [quorate.clusters :as clusters :refer [eventually]]
            [quorate.fluree.file-snapshots :as files]
            [quorate.raft :as raft]))

(set! *warn-on-reflection* true)

(def ^:private names ["a" "b" "c"])

(defn- config [directory servers server fns]
  (merge {:this-server server, :servers servers, :log-directory (io/file directory server "raft"), :log-level :error
          :snapshot-threshold 40, :log-keep-entries 5}
         fns))

(defn- started! [directory servers nodes fns server]
  (swap! nodes assoc server (raft/start (config directory servers server fns))))

(defn- stopped! [nodes server]
  (raft/close (get @nodes server))
  (swap! nodes dissoc server))

(defn- with-cluster
  "Starts three nodes, each with `(fns-of server)`, and calls `(f nodes start! stop!)`: an atom of nodes by name, and functions
  that start a server with given functions and stop it."
  [directory fns-of f]
  (let [servers (zipmap names (clusters/free-addresses (count names)))
        nodes   (atom {})
        start!  (fn [server fns] (started! directory servers nodes fns server))]
    (try
      (doseq [server names] (start! server (fns-of server)))
      (is (eventually 30 #(clusters/formed? (vals @nodes))))
      (f nodes start! #(stopped! nodes %))
      (finally
        (run! raft/close (vals @nodes))))))

(defn- a-follower [nodes]
  (let [leader (eventually #(:leader (raft/status (first (vals @nodes)))))]
    (first (remove #{leader} (keys @nodes)))))

(defn- leading [nodes]
  (eventually #(first (filter raft/leader? (vals @nodes)))))

(defn- purged? [nodes]
  (every? #(some-> (:purged-log-index (raft/status %)) (> 80)) (vals @nodes)))

(defn- user-of [directory server opts]
  (files/user (io/file directory server "snapshots") opts))

(defn- lagging!
  "With `users` by server: stops a follower, writes until the log that it would need is purged everywhere, and calls `(f server
  written nodes start!)`."
  [directory users f]
  (with-cluster
   directory (fn [server] (:fns (get users server)))
   (fn [nodes start! stop!]
     (files/sets! (leading nodes) 0 30)
     (let [server (a-follower nodes)]
       (stop! server)
       (files/sets! (leading nodes) 30 250)
       (is (eventually #(purged? nodes)) (pr-str (map raft/status (vals @nodes))))
       (f server 250 nodes start!)))))

(defn- caught-up? [user written]
  (= (files/kept written) @(:state user)))

(def ^:private part-keys
  #{:leader-id :term :snapshot-term :snapshot-index :snapshot-part :snapshot-parts :snapshot-data :instant :pending?})

(defn- check-parts
  "The calls of `user` are one whole transfer in `parts` parts, and then a reify of it."
  [user parts]
  (let [maps (mapv first (files/calls user :install))
        {:keys [snapshot-index] :as one} (peek maps)]
    (is (= (range 1 (inc parts)) (map :snapshot-part (take-last parts maps))) "from part 1, in order")
    (is (every? #(= part-keys (set (keys %))) maps) "exactly fluree's keys")
    (is (every? #(bytes? (:snapshot-data %)) maps))
    (is (every? #(= [parts snapshot-index (:snapshot-term one)] ((juxt :snapshot-parts :snapshot-index :snapshot-term) %)) (take-last parts maps)))
    (is (contains? (set names) (:leader-id one)))
    (is (pos? (long (:term one))))
    (let [[install reify] (take-last 2 (filter #(#{:install :reify} (first %)) @(:calls user)))]
      (is (= [:install :reify] [(first install) (first reify)]))
      (is (= snapshot-index (second reify)) "reify after the last part"))))

(deftest a-node-that-lags-and-one-with-an-empty-disk-get-the-parts
  (clusters/with-directory
   (fn [directory]
     (let [users (into {} (map (fn [s] [s (user-of directory s {:parts 5})])) names)]
       (lagging! directory users
         (fn [server written nodes start!]
           (let [user (user-of directory server {:parts 5})]
             (start! server (:fns user))
             (is (eventually #(caught-up? user written)))
             (check-parts user 5)
             (is (some #(seq (files/calls (get users %) :xfer)) names))
             (testing "a restart reads what was installed, and asks nobody"
               (stopped! nodes server)
               (let [again (user-of directory server {:parts 5})]
                 (start! server (:fns again))
                 (is (eventually #(caught-up? again written)))
                 (is (= 1 (count (files/calls again :reify))))
                 (is (= [] (files/calls again :install)))))
             (testing "an empty disk"
               (stopped! nodes server)
               (clusters/delete-tree (io/file directory server))
               (let [fresh (user-of directory server {:parts 5})]
                 (start! server (:fns fresh))
                 (is (eventually #(caught-up? fresh written)))
                 (check-parts fresh 5)
                 (files/sets! (leading nodes) written (+ 20 (long written)))
                 (is (eventually #(caught-up? fresh (+ 20 (long written))))))))))))))

(defn- once
  "A function of a user's function: `(bad original)` stands in for it the first time that `(when? args)` is true."
  [fired when? bad]
  (fn [original]
    (fn [& args]
      (apply (if (and (apply when? args) (compare-and-set! fired false true)) (bad original) original) args))))

(defn- part-2? [_index part] (= 2 part))

(deftest a-part-that-fails-is-reported-and-the-transfer-begins-again
  (doseq [[what bad said] [["throws" (fn [_] (fn [_ _] (throw (Exception. "no such file")))) #"no such file"]
                           ["returns nil" (fn [_] (fn [_ _] nil)) #"must return \{:parts n :data bytes\}"]
                           ["returns another number of parts" (fn [xfer] (fn [i p] (assoc (xfer i p) :parts 9))) #"had 3 parts, and now has 9"]
                           ["returns what cannot be written" (fn [xfer] (fn [i p] (assoc (xfer i p) :data inc))) #"cannot be read back"]
                           ["returns too much" (fn [xfer] (fn [i p] (assoc (xfer i p) :data (byte-array (* 65 1024 1024))))) #"return more, smaller parts"]]]
    (testing (str ":snapshot-xfer " what)
      (clusters/with-directory
       (fn [directory]
         (let [fired  (atom false)
               errors (atom [])
               users  (into {} (map (fn [s] [s (user-of directory s {:overrides {:snapshot-xfer (once fired part-2? bad)}})])) names)]
           (lagging! directory users
             (fn [server written _nodes start!]
               (let [user (user-of directory server {:parts 3})]
                 (start! server (assoc (:fns user) :error-fn #(swap! errors conj %)))
                 (is (eventually #(caught-up? user written)))
                 (is @fired)
                 (is (some #(and (= :snapshot-xfer (:where %)) (re-find said (:message %))) @errors) (pr-str (map :message @errors)))
                 (check-parts user 3)
                 (is (< 3 (count (files/calls user :install))) "it had begun before")))))))))

  (testing ":snapshot-install throws, and then :snapshot-reify"
    (clusters/with-directory
     (fn [directory]
       (let [errors (atom [])
             users  (into {} (map (fn [s] [s (user-of directory s nil)])) names)]
         (lagging! directory users
           (fn [server written _nodes start!]
             (let [throwing (fn [_] (fn [& _] (throw (Exception. "disk full"))))
                   user     (user-of directory server
                                     {:overrides {:snapshot-install (once (atom false) #(= 2 (:snapshot-part %)) throwing)
                                                  :snapshot-reify   (once (atom false) (constantly true) throwing)}})]
               (start! server (assoc (:fns user) :error-fn #(swap! errors conj %)))
               (is (eventually #(caught-up? user written)))
               (is (= #{:snapshot-install :snapshot-reify} (set (map :where @errors))))
               (check-parts user 3)))))))))

(defn- restarted!
  "Stops `server`, and starts it with a user whose functions are `overrides`; returns the user."
  [directory nodes start! server overrides]
  (when (get @nodes server)
    (stopped! nodes server))
  (let [user (user-of directory server {:overrides overrides})]
    (start! server (:fns user))
    user))

(deftest half-of-a-transfer-is-never-taken-for-a-snapshot
  (clusters/with-directory
   (fn [directory]
     (let [users  (into {} (map (fn [s] [s (user-of directory s nil)])) names)
           broken (fn [] {:snapshot-install (once (atom false) #(= 2 (:snapshot-part %)) (fn [_] (fn [_] (Thread/sleep Long/MAX_VALUE))))})]
       (lagging! directory users
         (fn [server written nodes start!]
           (let [go! (partial restarted! directory nodes start! server)]
             (testing "a node that is closed while the user's function hangs, and started again"
               (let [user (go! (broken))]
                 (is (eventually #(= 2 (count (files/calls user :install))))))
               (let [user (go! nil)]
                 (is (eventually #(caught-up? user written)))
                 (is (= :install (ffirst @(:calls user))) "nothing is read before all parts came")
                 (check-parts user 3)))
             (testing "a snapshot that got lost here is fetched again, which may break off as well"
               (clusters/delete-tree (io/file directory server "snapshots"))
               (let [user (go! (broken))]
                 (is (eventually #(= 2 (count (files/calls user :install)))))
                 (is (= :reify (ffirst @(:calls user))) "it was thought to be here"))
               (let [user (go! nil)]
                 (is (eventually #(caught-up? user written)))
                 (is (= :install (ffirst @(:calls user))))
                 (check-parts user 3))))))))))

(deftest when-the-snapshot-is-gone-a-newer-one-will-do
  (clusters/with-directory
   (fn [directory]
     (let [users   (into {} (map (fn [s] [s (user-of directory s nil)])) names)
           lagging (promise)
           ;; The first question for a part takes so long that the asked node writes newer ones, and deletes this.
           slow    (fn [nodes server written]
                     (fn [index]
                       (files/sets! (leading nodes) written (+ 60 (long written)))
                       (doseq [s (remove #{server} names)]
                         (is (eventually #(< (long index) (long (:snapshot-index (raft/status (get @nodes s)))))))
                         (.delete (files/file (io/file directory s "snapshots") index)))))
           fired   (atom false)
           users   (update-vals users (fn [user]
                                        (update-in user [:fns :snapshot-xfer]
                                                   (fn [xfer]
                                                     (fn [index part]
                                                       (when (and (realized? lagging) (compare-and-set! fired false true))
                                                         (@lagging index))
                                                       (xfer index part))))))]
       (lagging! directory users
         (fn [server written nodes start!]
           (deliver lagging (slow nodes server written))
           (let [user (user-of directory server nil)]
             (start! server (:fns user))
             (is (eventually #(caught-up? user (+ 60 (long written)))))
             (is (= (+ 60 (long written)) (raft/sync (get @nodes server) {:timeout-ms 10000})))
             (let [index (:snapshot-index (first (last (files/calls user :install))))]
               (is (= (range index (+ 60 (long written))) (drop-while #(< (long %) 30) @(:steps user))) "what the newer one has in it is not applied again")))))))))

;; ------------------------------------------------------------------------------------------ the README's convention

(defn- readme-user [noted]
  (let [state (atom {})]
    {:state state
     :fns   {:state-machine    (fn [[_ k v] _] (swap! state assoc k v) v)
             :snapshot-write   (fn [file value] (spit file (pr-str value)))
             :snapshot-reify   (fn [] @state)
             :snapshot-install (fn [value index] (swap! noted conj [:install index]) (reset! state value))
             :snapshot-xfer    (fn [value server] (swap! noted conj [:xfer value server]))}}))

(deftest the-readme-s-functions-take-the-state-as-a-value-and-hear-of-it
  (clusters/with-directory
   (fn [directory]
     (let [noted (atom [])
           users (into {} (map (fn [s] [s (readme-user noted)])) names)]
       (lagging! directory users
         (fn [server written _nodes start!]
           (let [own  (atom [])
                 user (readme-user own)]
             (start! server (:fns user))
             (is (eventually #(caught-up? user written)))
             (let [[[k index]] @own]
               (is (= :install k))
               (is (eventually #(seq @noted)))
               (is (= [:xfer (files/kept index) server] (first @noted)) "the node that took it is told whom it went to")))))))))
