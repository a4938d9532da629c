# The commands of this project. Each says what it lacks and stops; `make deps` installs it where it can.
.PHONY: help deps build test verify fix repl demo cluster jar clean bench bench-report bench-drop-in powercut torture damage eio full soak fuzz verify-data sim mutants
.DEFAULT_GOAL := help

help:    ## what there is
	@sed -n 's/^\([a-z-]*\): .*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
deps:    ## check for Leiningen, ring, a C compiler and curl; install what is missing (Debian)
	@dev/deps.sh
build: deps    ## build the native library and the Java classes
	@lein do native-library, javac
test: deps    ## run every test; the last line says how many passed and failed
	@dev/test.sh
verify: deps    ## check format, lints, reflection, docs; changes nothing
	@dev/verify.sh
fix: deps    ## format the sources and apply the lints' own suggestions
	@dev/fix.sh
repl: build    ## a REPL with dev/user.clj: (go) starts three nodes
	@lein repl
demo: build    ## three servers, one story: kill, refuse, return, rejoin
	@dev/demo.sh
cluster: build    ## three servers on 3000, 4000, 5000 until ^C
	@dev/cluster.sh
jar: build    ## a jar with the native library inside
	@dev/jar.sh
clean: deps    ## remove what the builds made
	@lein clean && cargo clean
bench:    ## measure everything and write target/bench/report.md: PARTS="floor engine ..." QUICK=1 LONG=1
	@PARTS="$(PARTS)" QUICK="$(QUICK)" LONG="$(LONG)" dev/bench.sh
bench-report:    ## write the report of what was measured, and nothing more
	@cargo run --quiet --locked --release -p quorate-bench -- report
bench-drop-in: build    ## a fluree/raft-style state machine on three nodes in one JVM, by either transport
	@lein with-profile +bench run -m drop-in
verify-data:    ## check the data directory of a node that does not run: DIR=
	@cargo run --quiet --locked --release -p quorate-cli -- verify "$(DIR)"

CRASH = cargo build --locked --release -p quorate-crash && target/release/crash
powercut:    ## cut the power of real disks under load (root): CYCLES=100 LEVEL=1 or 2, SEED=
	@$(CRASH) powercut --cycles $(or $(CYCLES),100) --level $(or $(LEVEL),1) $(if $(SEED),--seed $(SEED))
fuzz:    ## try everything that reads bytes with damaged input: SECONDS=60 a reader, SEED=
	@QUORATE_FUZZ_SECONDS=$(or $(SECONDS),60) $(if $(SEED),QUORATE_FUZZ_SEED=$(SEED)) cargo test --locked --release \
	  -p quorate-engine -p quorate-bridge --lib --test fuzz -- fuzz --show-output
torture:    ## kill, pause, part and wipe processes; check the history: MINUTES=5 SEED= CLIENTS= KEYS= KILLS=percent
	@$(CRASH) torture --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) $(if $(CLIENTS),--clients $(CLIENTS)) \
	    $(if $(KEYS),--keys $(KEYS)) $(if $(KILLS),--kills $(KILLS))
eio:    ## have a node's disk report I/O errors, at log, store and snapshot (strace): CYCLES=12 SEED=
	@$(CRASH) eio --cycles $(or $(CYCLES),12) $(if $(SEED),--seed $(SEED))
full:    ## fill a node's disk and free it again (root): CYCLES=10 SEED=
	@$(CRASH) full --cycles $(or $(CYCLES),10) $(if $(SEED),--seed $(SEED))
soak:    ## three nodes under full load, memory and disk over time: MINUTES=10
	@$(CRASH) soak --minutes $(or $(MINUTES),10)
damage:    ## damage files of closed nodes and start them: ALONE=200 THREE=50 SEED=
	@$(CRASH) damage --alone $(or $(ALONE),200) --among-three $(or $(THREE),50) $(if $(SEED),--seed $(SEED))

SIM = cargo run --locked --release -p quorate-simulation
sim:    ## simulated clusters, one a seed, on both cores: SEEDS=10000 FROM=1
	@$(SIM) -- run --seeds $(or $(SEEDS),1000) --from $(or $(FROM),1)
mutants:    ## plant each defect and see how soon the simulation finds it: ONLY=number SEEDS=2000
	@$(SIM) --features planted -- mutants --seeds $(or $(SEEDS),2000) $(if $(ONLY),--only $(ONLY))
