import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/** Quorate through Clojure, measured by its own benchmark (bench.clojure), whose lines are taken over. */
final class Lein {
    static final String NAME = "quorate clojure";
    private static final long PATIENCE_S = 600;

    private final Settings settings;
    private final Rows rows;

    Lein(final Settings settings, final Rows rows) {
        this.settings = settings;
        this.rows = rows;
    }

    /** The rows of byte arrays and of EDN maps of one round. */
    void measure(final int round) throws IOException, InterruptedException {
        final Path out = Files.createTempFile(settings.dir(), "quorate-peers-", ".jsonl");
        try {
            run(out);
            int taken = 0;
            for (final String line : Files.readAllLines(out)) {
                if (line.matches(".*\"system\"\\s*:\\s*\"" + NAME + "\".*")) {
                    rows.take(line, round);
                    taken++;
                }
            }
            if (taken == 0) {
                throw new IOException("bench.clojure wrote no row.");
            }
        } finally {
            Files.deleteIfExists(out);
        }
    }

    private void run(final Path out) throws IOException, InterruptedException {
        final List<String> words = new ArrayList<>(List.of("lein", "with-profile", "+bench", "run", "-m", "bench.clojure"));
        words.addAll(List.of("--rows", "bytes,edn", "--rounds", "1",
            "--seconds", String.valueOf(Math.max(1, Math.round(settings.seconds()))),
            "--n", settings.inFlight().stream().map(String::valueOf).collect(Collectors.joining(",")),
            "--bytes", String.valueOf(settings.bytes()), "--out", out.toString()));
        final Process process = new ProcessBuilder(words).redirectOutput(ProcessBuilder.Redirect.DISCARD)
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        // Its own processes end when their input does.
        final Thread atExit = new Thread(process::destroy);
        Runtime.getRuntime().addShutdownHook(atExit);
        try {
            if (!process.waitFor(PATIENCE_S, TimeUnit.SECONDS) || process.exitValue() != 0) {
                throw new IOException(String.join(" ", words) + " failed.");
            }
        } finally {
            process.descendants().forEach(ProcessHandle::destroy);
            process.destroy();
            Runtime.getRuntime().removeShutdownHook(atExit);
        }
    }
}
