(ns leiningen.plain-repl
  "The Leiningen task behind `lein repl` in this project. Leiningen's own client, reply, is neither in Debian nor in Maven
  Central; where it cannot be fetched, `lein repl` is Clojure's plain REPL instead. Everything else, such as
  `lein repl :headless` for an editor, goes to Leiningen's own task."
  (:require [cemerick.pomegranate :as pomegranate]
            [leiningen.core.classpath :as classpath]
            [leiningen.core.eval :as eval]
            [leiningen.core.main :as main]
            [leiningen.core.project :as project]
            [leiningen.repl :as repl])
  (:import (org.eclipse.aether RepositoryException)))

(defn- client-available?
  "Whether Leiningen's client can be had, from the local repository or a remote one."
  [project]
  (try (pomegranate/add-dependencies :coordinates (:dependencies repl/reply-profile)
                                     :repositories (map classpath/add-repo-auth (:repositories project)))
       true
       (catch RepositoryException _ false)))

(defn- plain [project]
  (main/warn "Leiningen's line editor (reply) cannot be fetched; this is Clojure's plain REPL. ^D leaves it.")
  (eval/eval-in-project
   (project/merge-profiles project (project/profiles-with-matching-meta project :repl))
   `(do (clojure.main/repl :init (fn []
                                   (in-ns '~'user)
                                   (apply require clojure.main/repl-requires)))
        (System/exit 0))
   `(require 'clojure.main)))

(defn ^:pass-through-help plain-repl
  "Start a REPL of the project; see Leiningen's own `repl` for the arguments."
  [project & arguments]
  (if (contains? #{[] [":start"]} (vec arguments))
    (if (client-available? project)
      (repl/repl project ":start")
      (plain project))
    (apply repl/repl project arguments)))
