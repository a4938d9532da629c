package peers;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * One node, that answers questions on stdin until that ends, and then itself ends. Answers begin with "= ", failures with
 * "! "; everything else that a library prints goes to stderr.
 * <pre>
 * facts                          = leads=BOOLEAN term=N applied=N
 * load IN_FLIGHT BYTES WARM SECONDS   = ops=N seconds=S p50_us=... p99_us=... p999_us=... max_us=...
 * </pre>
 */
public final class Main {
    /** How long closing may take once nobody asks any more; then the process ends anyway. */
    private static final long CLOSE_PATIENCE_MS = 10_000;
    private static final String END = "";

    private Main() {
    }

    public static void main(final String[] args) throws Exception {
        final PrintStream answers = System.out;
        System.setOut(System.err);
        final Options options = Options.read(args);
        Files.createDirectories(options.dir());
        final BlockingQueue<String> questions = questions();
        try (Peer peer = start(options)) {
            answers.println("= pid=" + ProcessHandle.current().pid());
            for (String question = questions.take(); !question.equals(END); question = questions.take()) {
                answers.println(answer(peer, question));
            }
        }
        // Libraries leave threads behind that are not daemons.
        System.exit(0);
    }

    private static Peer start(final Options options) throws Exception {
        return switch (options.system()) {
            case "aeron" -> new AeronPeer(options);
            case "jraft" -> new JRaftPeer(options);
            case "ratis" -> new RatisPeer(options);
            case "microraft" -> new MicroRaftPeer(options);
            case "fluree" -> new FlureePeer(options);
            default -> throw new IllegalArgumentException("There is no system " + options.system());
        };
    }

    private static String answer(final Peer peer, final String question) {
        final String[] words = question.split(" ");
        try {
            switch (words[0]) {
                case "facts":
                    return "= leads=" + peer.leads() + " term=" + peer.term() + " applied=" + peer.applied();
                case "load":
                    final Clock clock = new Clock(Double.parseDouble(words[3]), Double.parseDouble(words[4]));
                    peer.load(Integer.parseInt(words[1]), Integer.parseInt(words[2]), clock);
                    return "= " + clock.result();
                default:
                    return "! There is no question " + question;
            }
        } catch (final IOException | InterruptedException | RuntimeException failure) {
            failure.printStackTrace();
            return "! " + String.valueOf(failure).replace('\n', ' ');
        }
    }

    /** The lines of stdin, read on a thread of its own: its end must be seen in the middle of a run, too. */
    private static BlockingQueue<String> questions() {
        final BlockingQueue<String> questions = new LinkedBlockingQueue<>(16);
        final Thread thread = new Thread(() -> {
            try (BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
                for (String line = in.readLine(); line != null; line = in.readLine()) {
                    questions.put(line);
                }
                questions.put(END);
                Thread.sleep(CLOSE_PATIENCE_MS);
            } catch (final IOException | InterruptedException failure) {
                failure.printStackTrace();
            }
            System.err.println("The node did not close in " + CLOSE_PATIENCE_MS + " ms.");
            Runtime.getRuntime().halt(1);
        }, "questions");
        thread.setDaemon(true);
        thread.start();
        return questions;
    }
}
