(ns quorate.impl.report
  "Errors of users' functions: to the log, to the user's `:error-fn`, and into the status."
  (:require [clojure.tools.logging :as log]
            [quorate.impl.lanes :as lanes])
  (:import (java.time Instant)))

(set! *warn-on-reflection* true)

(defn- sentence [{:keys [key]} where ^Throwable error]
  (str "Error in " where
       (when (some? key) (str " " (pr-str key)))
       ": " (or (ex-message error) (.getName (class error)))))

(defn- tell! [error-fn report]
  (try
    (error-fn report)
    (catch Throwable t
      (log/error t ":error-fn threw."))))

(defn- pass-on!
  "Calls `error-fn` on a lane of its own; here when there is no node yet, or no more."
  [{:keys [error-lane]} error-fn report]
  (case (if error-lane (lanes/offer! error-lane (fn [] (tell! error-fn report))) :ended)
    :taken nil
    :full  (log/warn ":error-fn does not keep up; it was not told of:" (:message report))
    :ended (tell! error-fn report)))

(defn report!
  "Reports that a user's function failed. Logs it; keeps it for `:last-error` of the status; calls the configuration's
  `:error-fn`, on a thread beside the others, with a map

      :where    the configuration's key of the function, such as :snapshot-write, or :callback, :watch, :monitor
      :error    `error`
      :message  a sentence
      :instant  when, in ms since 1970
      and whatever is in `data`

  `rt` is a runtime, or a configuration when there is no runtime yet; `where` a keyword; `error` a Throwable; `data` a map or
  nil, whose `:key` is named in the message. Returns nil; never throws and never waits."
  ([rt where error] (report! rt where error nil))
  ([rt where ^Throwable error data]
   (let [config  (:config rt rt)
         message (sentence data where error)
         report  (assoc data :where where, :error error, :message message, :instant (System/currentTimeMillis))]
     (log/error error message)
     (when-let [last-error (:last-error rt)]
       (reset! last-error {:where where, :message message, :at (str (Instant/ofEpochMilli (:instant report)))}))
     (when-let [error-fn (:error-fn config)]
       (pass-on! rt error-fn report))
     nil)))

(defmacro reported
  "What `body` returns; when it throws, [[report!]]s that with `rt`, `where` and `data`, and returns nil."
  [[rt where data] & body]
  `(try
     ~@body
     (catch Throwable t#
       (report! ~rt ~where t# ~data))))
