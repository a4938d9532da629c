(ns quorate.impl.printing
  "How futures print."
  (:import (java.io Writer)
           (quorate.impl Answer)))

(set! *warn-on-reflection* true)

(defn- answer-summary [^Answer answer]
  (cond
    (not (.isDone answer))             "pending"
    (.isCompletedExceptionally answer) (try (.join answer) nil
                                            (catch Exception e
                                              (str "failed: " (ex-message (or (ex-cause e) e)))))
    :else                              (binding [*print-length* 10, *print-level* 4]
                                         (pr-str (.join answer)))))

(defmethod print-method Answer [answer ^Writer out]
  (.write out (str "#<quorate/Answer " (answer-summary answer) ">")))
