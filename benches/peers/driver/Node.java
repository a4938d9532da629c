import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** One process of a cluster, asked over its stdin and stdout; its stderr goes to a file beside its data. */
final class Node implements AutoCloseable {
    private static final String ENDED = "! The process ended.";
    /** How long a process may take to end before it is killed: longer than it gives itself. */
    private static final int END_PATIENCE_S = 20;

    private final Process process;
    private final Writer input;
    private final Path log;
    private final Path table;
    private final BlockingQueue<String> answers = new LinkedBlockingQueue<>();

    /**
     * Starts {@code command}; under strace when {@code traced}, which counts the calls that make data durable.
     *
     * @param environment added to this process's own
     * @param name of its files in {@code dir}
     */
    Node(final List<String> command, final Map<String, String> environment, final Path dir, final String name,
        final boolean traced) throws IOException {
        log = dir.resolve(name + ".log");
        table = dir.resolve(name + ".strace");
        final List<String> words = new ArrayList<>();
        if (traced) {
            words.addAll(List.of("strace", "-f", "--seccomp-bpf", "-c", "-U", "name,calls", "-e",
                "trace=fsync,fdatasync,msync,sync_file_range,sync,syncfs", "-o", table.toString()));
        }
        words.addAll(command);
        final ProcessBuilder builder = new ProcessBuilder(words).redirectError(log.toFile());
        builder.environment().putAll(environment);
        process = builder.start();
        input = process.outputWriter(StandardCharsets.UTF_8);
        final Thread thread = new Thread(this::read, "answers-" + name);
        thread.setDaemon(true);
        thread.start();
    }

    private void read() {
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                if (line.startsWith("= ") || line.startsWith("! ")) {
                    answers.add(line);
                }
            }
        } catch (final IOException ended) {
            throw new UncheckedIOException(ended);
        } finally {
            answers.add(ENDED);
        }
    }

    /** The next answer, NAME=VALUE by name. Fails with what the node fails with, or when it says nothing for so many seconds. */
    Map<String, String> answer(final double patience) throws IOException, InterruptedException {
        final String line = answers.poll((long) (patience * 1e3), TimeUnit.MILLISECONDS);
        if (line == null) {
            throw new IOException("No answer in " + patience + " s." + lastWords());
        }
        if (line.startsWith("! ")) {
            throw new IOException(line.substring(2) + lastWords());
        }
        final Map<String, String> facts = new HashMap<>();
        for (final String fact : line.substring(2).split(" ")) {
            final int at = fact.indexOf('=');
            facts.put(fact.substring(0, at), fact.substring(at + 1));
        }
        return facts;
    }

    Map<String, String> ask(final String question, final double patience) throws IOException, InterruptedException {
        input.write(question + "\n");
        input.flush();
        return answer(patience);
    }

    private String lastWords() throws IOException {
        if (!Files.exists(log)) {
            return "";
        }
        final List<String> lines = Files.readAllLines(log, StandardCharsets.ISO_8859_1);
        return "\n  " + String.join("\n  ", lines.subList(Math.max(0, lines.size() - 25), lines.size()));
    }

    /** Tells the process to end, without waiting. */
    void release() throws IOException {
        input.close();
    }

    /** Waits for the end. Fails when it is not a good one. */
    void ended() throws IOException, InterruptedException {
        if (!process.waitFor(END_PATIENCE_S, TimeUnit.SECONDS)) {
            throw new IOException("A process did not end." + lastWords());
        }
        if (process.exitValue() != 0) {
            throw new IOException("A process ended with status " + process.exitValue() + "." + lastWords());
        }
    }

    /** The calls that strace counted, by name, after the end. */
    Map<String, Long> calls() throws IOException {
        return calls(Files.readString(table));
    }

    /** The calls in a table of {@code strace -c -U name,calls}. */
    static Map<String, Long> calls(final String table) {
        final Map<String, Long> calls = new HashMap<>();
        for (final String line : table.split("\n")) {
            final String[] words = line.trim().split("\\s+");
            if (words.length == 2 && words[1].matches("\\d+") && !words[0].equals("total")) {
                calls.put(words[0], Long.parseLong(words[1]));
            }
        }
        return calls;
    }

    /** Makes sure that the process is gone, with its children: under strace the node is one. */
    @Override
    public void close() {
        process.descendants().forEach(ProcessHandle::destroyForcibly);
        process.destroyForcibly();
    }
}
