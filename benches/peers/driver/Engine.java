import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** Quorate's engine, measured by its own program, which starts the same three processes and the same closed loop. */
final class Engine {
    static final String NAME = "quorate engine";
    static final String FSYNC = "fdatasync of the log before an append counts, on every node";
    private static final Pattern NUMBER = Pattern.compile("\"(\\w+)\"\\s*:\\s*([0-9][0-9.eE+-]*)");
    private static final long SLACK_S = 120;

    private final Settings settings;
    private final Rows rows;

    Engine(final Settings settings, final Rows rows) {
        this.settings = settings;
        this.rows = rows;
    }

    /** All rows of a round, on one cluster. */
    void measure(final int round) throws IOException, InterruptedException {
        final String inFlight = settings.inFlight().stream().map(String::valueOf).collect(Collectors.joining(","));
        for (final String line : run(inFlight, Math.max(1, Math.round(settings.seconds())), List.of())) {
            if (line.contains("\"writers\"")) {
                final Map<String, String> figures = numbers(line);
                rows.run(NAME, "bytes", Integer.parseInt(figures.get("writers")), settings.bytes(), round, figures,
                    "\"fsync\":" + Rows.text(FSYNC));
            }
        }
    }

    /** A short run under strace. */
    void count(final int inFlight) throws IOException, InterruptedException {
        long commands = 0;
        final List<Map<String, Long>> calls = new ArrayList<>();
        final long seconds = Math.max(1, Math.round(settings.countSeconds()));
        for (final String line : run(String.valueOf(inFlight), seconds, List.of("--strace"))) {
            final Map<String, String> figures = numbers(line);
            if (line.contains("\"bench\": \"strace\"")) {
                final Map<String, Long> node = new HashMap<>();
                figures.forEach((call, count) -> node.put(call, Long.valueOf(count)));
                calls.add(node);
            } else if (figures.containsKey("commands")) {
                commands = Long.parseLong(figures.get("commands"));
            }
        }
        if (calls.size() != Cluster.NODES) {
            throw new IOException("strace counted " + calls.size() + " processes.");
        }
        rows.syncs(NAME, inFlight, settings.bytes(), commands, calls, FSYNC);
    }

    private List<String> run(final String inFlight, final long seconds, final List<String> more)
        throws IOException, InterruptedException {
        final List<String> words = new ArrayList<>(settings.engine());
        words.addAll(List.of("writers", "--writers", inFlight, "--seconds", String.valueOf(seconds), "--bytes",
            String.valueOf(settings.bytes()), "--dir", settings.dir().toString()));
        words.addAll(more);
        final Path told = Files.createTempFile(settings.dir(), "quorate-peers-", ".log");
        final Process process = new ProcessBuilder(words).redirectError(told.toFile()).start();
        final Thread atExit = new Thread(process::destroy);
        Runtime.getRuntime().addShutdownHook(atExit);
        try (BufferedReader out = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
            final List<String> lines = out.lines().collect(Collectors.toList());
            if (!process.waitFor(SLACK_S, TimeUnit.SECONDS) || process.exitValue() != 0) {
                throw new IOException(String.join(" ", words) + " failed.\n" + Files.readString(told));
            }
            return lines;
        } finally {
            Files.deleteIfExists(told);
            process.destroyForcibly();
            Runtime.getRuntime().removeShutdownHook(atExit);
        }
    }

    /** The numbers in a flat JSON object, by name. */
    static Map<String, String> numbers(final String json) {
        final Map<String, String> numbers = new HashMap<>();
        final Matcher matcher = NUMBER.matcher(json);
        while (matcher.find()) {
            numbers.putIfAbsent(matcher.group(1), matcher.group(2));
        }
        return numbers;
    }
}
