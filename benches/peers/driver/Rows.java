import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.StringJoiner;
import java.util.TreeMap;

/** The lines of figures: JSON in the file, a sentence for a person on stdout. */
final class Rows {
    private static final List<String> LATENCIES = List.of("p50_us", "p99_us", "p999_us", "max_us");

    private final Path file;

    /** Lines go to {@code file}, which is emptied unless {@code append}. */
    Rows(final Path file, final boolean append) throws IOException {
        this.file = file;
        Files.createDirectories(file.toAbsolutePath().getParent());
        if (!append) {
            Files.writeString(file, "");
        }
    }

    /** One measured run, with the figures {@code ops seconds p50_us ...}. */
    void run(final String system, final String variant, final int inFlight, final int bytes, final int round,
        final Map<String, String> figures, final String more) throws IOException {
        final double rate = Double.parseDouble(figures.get("ops")) / Double.parseDouble(figures.get("seconds"));
        final StringJoiner line = head(system, variant, inFlight, bytes, round)
            .add("\"seconds\":" + figures.get("seconds"))
            .add(String.format(Locale.ROOT, "\"ops_per_s\":%.1f", rate));
        for (final String latency : LATENCIES) {
            if (figures.containsKey(latency)) {
                line.add("\"" + latency + "\":" + figures.get(latency));
            }
        }
        write(line.add("\"more\":{" + more + "}"));
        System.out.printf(Locale.ROOT, "%-16s %-5s round %d  n %5d  %9.0f ops/s  p50 %s us  p99 %s us%n", system, variant, round,
            inFlight, rate, figures.get("p50_us"), figures.get("p99_us"));
    }

    /** A line of another benchmark, as one of this round. */
    void take(final String line, final int round) throws IOException {
        final String own = line.replaceFirst("\"part\"\\s*:\\s*\"[a-z]+\"", "\"part\":\"peers\"")
            .replaceFirst("\"round\"\\s*:\\s*\\d+", "\"round\":" + round);
        Files.writeString(file, own + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        System.out.println(own);
    }

    /** The calls of each process that made {@code commands} commands durable; gives how many, of all, a command. */
    double syncs(final String system, final int inFlight, final int bytes, final long commands,
        final List<Map<String, Long>> calls, final String fsync) throws IOException {
        if (commands == 0) {
            throw new IOException("No command was applied.");
        }
        final Map<String, Long> all = new TreeMap<>();
        final List<String> nodes = new ArrayList<>();
        for (final Map<String, Long> node : calls) {
            node.forEach((call, count) -> all.merge(call, count, Long::sum));
            nodes.add(String.valueOf(sum(node)));
        }
        final double each = (double) sum(all) / commands;
        final StringJoiner counted = new StringJoiner(",", "{", "}");
        all.forEach((call, count) -> counted.add("\"" + call + "\":" + count));
        write(head(system, "durability", inFlight, bytes, 1).add("\"more\":{\"syncs_per_command\":"
            + String.format(Locale.ROOT, "%.4f", each) + ",\"commands\":" + commands + ",\"syncs_of_nodes\":"
            + nodes + ",\"call\":" + text(all.isEmpty() ? "none" : String.join(", ", all.keySet())) + ",\"calls\":" + counted + ",\"fsync\":"
            + text(fsync) + "}"));
        System.out.printf(Locale.ROOT, "%-16s n %5d  %d commands, syncs of the nodes %s, %.3f a command (%s)%n", system,
            inFlight, commands, nodes, each, counted);
        return each;
    }

    /** Without sync_file_range, which starts writing but makes nothing durable. */
    private static long sum(final Map<String, Long> calls) {
        return calls.entrySet().stream().filter(call -> !call.getKey().equals("sync_file_range"))
            .mapToLong(Map.Entry::getValue).sum();
    }

    private static StringJoiner head(final String system, final String variant, final int inFlight, final int bytes,
        final int round) {
        return new StringJoiner(",", "{", "}").add("\"part\":\"peers\"").add("\"system\":" + text(system))
            .add("\"variant\":" + text(variant)).add("\"n\":" + inFlight).add("\"bytes\":" + bytes)
            .add("\"round\":" + round);
    }

    /** A JSON string of plain characters. */
    static String text(final String plain) {
        return '"' + plain.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    private void write(final StringJoiner line) throws IOException {
        Files.writeString(file, line + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
    }
}
