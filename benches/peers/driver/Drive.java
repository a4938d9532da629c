import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Runs the systems side by side: in each round every one, a fresh cluster each time, and a line of figures a run. */
public final class Drive {
    /** What a load may take beyond its time, in seconds: connecting, and the last commands. */
    private static final double SLACK_S = 60;
    /** In flight while the cluster warms up, before anything is measured: compilers, files, connections. */
    private static final int WARM_IN_FLIGHT = 256;

    /** Nodes of three that must have synced a command before it is acknowledged. */
    private static final int MAJORITY = 2;

    private final Settings settings;
    private final Rows rows;
    private final List<String> failures = new ArrayList<>();

    private Drive(final Settings settings) throws IOException {
        this.settings = settings;
        rows = new Rows(settings.out(), settings.append());
    }

    public static void main(final String[] args) throws IOException, InterruptedException {
        final Settings settings;
        try {
            settings = Settings.read(args);
        } catch (final IllegalArgumentException nonsense) {
            System.err.println(nonsense.getMessage());
            System.exit(2);
            return;
        }
        final Drive drive = new Drive(settings);
        drive.run();
        drive.failures.forEach(failure -> System.err.println("FAILED: " + failure));
        final boolean complete = System.getenv("PEERS_MISSING") == null || List.of(args).contains("--only");
        System.exit(!drive.failures.isEmpty() ? 1 : complete ? 0 : 3);
    }

    private void run() throws InterruptedException {
        for (int i = 0; i < settings.rounds(); i++) {
            final int round = settings.firstRound() + i;
            for (final PeerSystem system : settings.systems()) {
                attempt(system, "round " + round, () -> {
                    switch (system.key()) {
                        case "quorate" -> new Engine(settings, rows).measure(round);
                        case "clojure" -> new Lein(settings, rows).measure(round);
                        default -> measure(system, round);
                    }
                });
            }
        }
        if (settings.syncs()) {
            for (final PeerSystem system : settings.systems()) {
                for (final int inFlight : settings.countInFlight()) {
                    attempt(system, "counting syncs", () -> {
                        switch (system.key()) {
                            case "quorate" -> new Engine(settings, rows).count(inFlight);
                            case "clojure" -> { } // The same log under it: the engine's count.
                            default -> count(system, inFlight);
                        }
                    });
                }
            }
        }
    }

    private interface Part {
        void run() throws IOException, InterruptedException;
    }

    private void attempt(final PeerSystem system, final String what, final Part part) throws InterruptedException {
        try {
            part.run();
        } catch (final IOException | RuntimeException failure) {
            System.err.println(system.name() + ", " + what + ": " + failure);
            failures.add(system.name() + ", " + what);
        }
    }

    private void measure(final PeerSystem system, final int round) throws IOException, InterruptedException {
        try (Cluster cluster = new Cluster(system, settings.dir(), false)) {
            load(cluster.leader(), WARM_IN_FLIGHT, 0, settings.warmFirst());
            for (final int inFlight : settings.inFlight()) {
                final Node leader = cluster.leader();
                final String term = leader.ask("facts", SLACK_S).get("term");
                final Map<String, String> figures = load(leader, inFlight, settings.warm(), settings.seconds());
                unmoved(leader, term, inFlight);
                cluster.settle(leader);
                rows.run(system.name(), system.variant(), inFlight, settings.bytes(), round, figures,
                    "\"fsync\":" + Rows.text(system.fsync()));
            }
            cluster.end(false);
        }
    }

    private Map<String, String> load(final Node leader, final int inFlight, final double warm, final double seconds)
        throws IOException, InterruptedException {
        final String question =
            String.format(Locale.ROOT, "load %d %d %.3f %.3f", inFlight, settings.bytes(), warm, seconds);
        return leader.ask(question, warm + seconds + SLACK_S);
    }

    private static void unmoved(final Node leader, final String term, final int inFlight)
        throws IOException, InterruptedException {
        final Map<String, String> facts = leader.ask("facts", SLACK_S);
        if (!facts.get("leads").equals("true") || !facts.get("term").equals(term)) {
            throw new IOException("The leadership moved with " + inFlight + " in flight; the figures would mean nothing.");
        }
    }

    /** From start to end under strace: what the three make durable, in calls, over what they applied. */
    private void count(final PeerSystem system, final int inFlight) throws IOException, InterruptedException {
        try (Cluster cluster = new Cluster(system, settings.dir(), true)) {
            final Node leader = cluster.leader();
            load(leader, inFlight, 0, settings.countSeconds());
            final long commands = cluster.settle(leader);
            final double each =
                rows.syncs(system.name(), inFlight, settings.bytes(), commands, cluster.end(true), system.fsync());
            if (system.durable() && inFlight == 1 && each < MAJORITY) {
                throw new IOException("A command alone took " + each + " syncs: no majority had it on disk.");
            }
        }
    }
}
