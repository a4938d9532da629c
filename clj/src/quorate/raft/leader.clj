(ns quorate.raft.leader
  "What consumers of fluree.raft.leader use.")

(set! *warn-on-reflection* true)

(defn is-leader?
  "True when `raft-state`, a raft state or a node as `start` returned it, says that its server leads."
  [raft-state]
  (= :leader (:status raft-state)))
