import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;

/**
 * What the driver is told. The programs come from the environment, which run.sh fills: PEERS_JAVA (class path of the JVM's
 * peers), PEERS_GO (the Go program), PEERS_ENGINE (quorate-bench), PEERS_CLOJURE (lein), PEERS_FLUREE (class path with fluree/raft); one
 * that is not there is not run.
 *
 * @param systems what is run, in order
 * @param inFlight commands in flight, one run each
 * @param bytes of a command
 * @param rounds how often
 * @param firstRound number of the first round
 * @param seconds of one run
 * @param warm seconds before it that do not count
 * @param warmFirst seconds of warm-up of a new cluster
 * @param syncs whether syncs are counted after the rounds
 * @param countInFlight in flight in the runs that count them: alone, and in batches
 * @param countSeconds of a run under strace
 * @param dir where the data goes
 * @param out file of the figures
 * @param append whether it is kept
 * @param engine quorate-bench
 */
record Settings(List<PeerSystem> systems, List<Integer> inFlight, int bytes, int rounds, int firstRound, double seconds,
    double warm, double warmFirst, boolean syncs, List<Integer> countInFlight, double countSeconds, Path dir, Path out, boolean append,
    List<String> engine) {

    private static final String USAGE = """
        run.sh [--quick] [--only a,b] [--rounds R] [--round FIRST] [--seconds S] [--n N,N] [--warm-first S] [--dir DIR]
               [--out FILE] [--append] [--no-syncs | --only-syncs]
        A system with other settings: aeron+AERON_DRIVER=dedicated+AERON_TERM=16777216 (commas in a value: semicolons).""";
    private static final List<String> JVM = List.of("--add-opens", "java.base/jdk.internal.misc=ALL-UNNAMED",
        "--add-opens", "java.base/java.util.zip=ALL-UNNAMED", "--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED",
        "--add-opens", "java.base/java.nio=ALL-UNNAMED", "--add-opens", "java.base/java.lang=ALL-UNNAMED");

    /** Reads the command line; fails with a sentence. */
    static Settings read(final String[] args) {
        final Arguments arguments = new Arguments(args);
        final boolean quick = arguments.flag("--quick");
        final List<PeerSystem> systems = chosen(arguments.value("--only", ""), quick);
        final boolean append = arguments.flag("--append");
        final boolean only = arguments.flag("--only-syncs");
        final boolean none = arguments.flag("--no-syncs");
        final List<Integer> inFlight = Arrays.stream(arguments.value("--n", quick ? "1,64" : "1,16,64,256,1024").split(","))
            .map(Integer::valueOf).collect(Collectors.toList());
        final Settings settings = new Settings(systems, inFlight, 128,
            only ? 0 : arguments.number("--rounds", quick ? 1 : 2), arguments.number("--round", 1),
            arguments.number("--seconds", quick ? 1 : 3), 1, arguments.number("--warm-first", quick ? 1 : 5), !none,
            quick ? List.of(1) : List.of(1, 64), quick ? 1 : 3, Path.of(arguments.value("--dir", System.getProperty("java.io.tmpdir"))),
            Path.of(arguments.value("--out", "target/bench/peers.jsonl")), append, words("PEERS_ENGINE"));
        arguments.end();
        return settings;
    }

    /** Those that are named, or all that are there; in a quick run without Leiningen, which takes longest to start. */
    private static List<PeerSystem> chosen(final String only, final boolean quick) {
        final List<PeerSystem> all = all();
        if (only.isEmpty()) {
            return all.stream().filter(system -> !system.program().isEmpty() && !(quick && system.key().equals("clojure")))
                .collect(Collectors.toList());
        }
        final List<PeerSystem> chosen = new ArrayList<>();
        for (final String one : only.split(",")) {
            final List<String> parts = List.of(one.split("\\+"));
            final String key = parts.get(0);
            final PeerSystem system = all.stream().filter(known -> known.key().equals(key)).findFirst().orElseThrow(
                () -> new IllegalArgumentException("There is no system " + key + "; there are "
                    + all.stream().map(PeerSystem::key).collect(Collectors.joining(", ")) + "."));
            if (system.program().isEmpty()) {
                throw new IllegalArgumentException(system.name() + " is not built here.");
            }
            chosen.add(system.with(parts.subList(1, parts.size())));
        }
        return chosen;
    }

    private static List<PeerSystem> all() {
        return List.of(
            new PeerSystem("quorate", Engine.NAME, Engine.FSYNC, words("PEERS_ENGINE")),
            new PeerSystem("clojure", Lein.NAME, Engine.FSYNC, words("PEERS_CLOJURE")),
            new PeerSystem("aeron", "Aeron Cluster", "archive forces before it reports a position (file sync level 2)",
                java("PEERS_JAVA", "-Xms512m -Xmx512m -XX:+AlwaysPreTouch", "peers.Main")),
            new PeerSystem("jraft", "SOFAJRaft", "RocksDB's log is written with sync on every node (sync, syncMeta)",
                java("PEERS_JAVA", "-Xms512m -Xmx1g -XX:+AlwaysPreTouch", "peers.Main")),
            new PeerSystem("ratis", "Apache Ratis", "its log worker forces what has queued, on every node",
                java("PEERS_JAVA", "-Xms512m -Xmx1g -XX:+AlwaysPreTouch", "peers.Main")),
            new PeerSystem("microraft", "MicroRaft", "our store forces at each flush it is asked for",
                java("PEERS_JAVA", "-Xms512m -Xmx1g -XX:+AlwaysPreTouch", "peers.Main")),
            new PeerSystem("hashicorp", "hashicorp/raft", "raft-wal syncs each append on every node", words("PEERS_GO")),
            new PeerSystem("fluree", "fluree/raft", "none: it never syncs",
                java("PEERS_FLUREE", "-Xms512m -Xmx1g -XX:+AlwaysPreTouch", "peers.Main")));
    }

    private static List<String> words(final String variable) {
        final String value = System.getenv(variable);
        return value == null || value.isEmpty() ? List.of() : List.of(value);
    }

    private static List<String> java(final String variable, final String heap, final String main) {
        final List<String> classPath = words(variable);
        if (classPath.isEmpty()) {
            return List.of();
        }
        final List<String> words = new ArrayList<>(List.of("java"));
        words.addAll(JVM);
        words.addAll(List.of(heap.split(" ")));
        final String more = System.getenv("PEERS_JVM");
        if (more != null && !more.isEmpty()) {
            words.addAll(List.of(more.split(" ")));
        }
        words.addAll(List.of("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classPath.get(0)));
        words.addAll(List.of(main.split(" ")));
        return words;
    }

    private static final class Arguments {
        private final List<String> left;

        Arguments(final String[] args) {
            left = new ArrayList<>(List.of(args));
        }

        boolean flag(final String name) {
            return left.remove(name);
        }

        String value(final String name, final String ordinary) {
            final int at = left.indexOf(name);
            if (at < 0) {
                return ordinary;
            }
            left.remove(at);
            if (at == left.size()) {
                throw new IllegalArgumentException(name + " needs a value.\n" + USAGE);
            }
            return left.remove(at);
        }

        int number(final String name, final int ordinary) {
            final String value = value(name, String.valueOf(ordinary));
            if (!value.matches("[0-9]{1,6}")) {
                throw new IllegalArgumentException(name + " must be a number, not " + value + ".\n" + USAGE);
            }
            return Integer.parseInt(value);
        }

        void end() {
            if (!left.isEmpty()) {
                throw new IllegalArgumentException(left.get(0) + " is not understood.\n" + USAGE);
            }
        }
    }
}
