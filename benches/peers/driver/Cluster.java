import java.io.IOException;
import java.net.DatagramSocket;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** The processes of one system, with their data in temporary directories that go with them. */
final class Cluster implements AutoCloseable {
    static final int NODES = 3;
    /** Most that a system needs (Aeron: ingress, consensus, log, catch-up, archive). */
    private static final int PORTS = 5;
    /** How long starting, electing and settling may take, in seconds. */
    private static final double PATIENCE_S = 40;

    private final Path dir;
    private final Path fast;
    private final List<Node> nodes = new ArrayList<>();
    private final Thread atExit = new Thread(this::remove);

    /** Starts them and waits until one leads. */
    Cluster(final PeerSystem system, final Path disk, final boolean traced) throws IOException, InterruptedException {
        dir = Files.createTempDirectory(disk, "quorate-peers-");
        fast = Files.createTempDirectory(Path.of("/dev/shm"), "quorate-peers-");
        Runtime.getRuntime().addShutdownHook(atExit);
        try {
            final String ports = ports();
            for (int node = 0; node < system.processes(); node++) {
                final String own = "node-" + node;
                final List<String> command = system.command(node, ports, dir.resolve(own), fast.resolve(own));
                nodes.add(new Node(command, system.settings(), dir, own, traced));
            }
            for (final Node node : nodes) {
                node.answer(PATIENCE_S);
            }
            leader();
        } catch (final IOException | InterruptedException | RuntimeException failure) {
            close();
            throw failure;
        }
    }

    /** The node that leads, alone, and knows it. Fails when there is none in time. */
    Node leader() throws IOException, InterruptedException {
        final long limit = System.nanoTime() + (long) (PATIENCE_S * 1e9);
        while (System.nanoTime() < limit) {
            final List<Node> leaders = new ArrayList<>();
            for (final Node node : nodes) {
                if (node.ask("facts", PATIENCE_S).get("leads").equals("true")) {
                    leaders.add(node);
                }
            }
            if (leaders.size() == 1) {
                return leaders.get(0);
            }
            Thread.sleep(50);
        }
        throw new IOException("There is no leader after " + PATIENCE_S + " s.");
    }

    /** Waits until every node has applied as many commands as {@code leader}, and says how many. */
    long settle(final Node leader) throws IOException, InterruptedException {
        final String applied = leader.ask("facts", PATIENCE_S).get("applied");
        final long limit = System.nanoTime() + (long) (PATIENCE_S * 1e9);
        for (final Node node : nodes) {
            String own = node.ask("facts", PATIENCE_S).get("applied");
            while (!own.equals(applied)) {
                if (System.nanoTime() > limit) {
                    throw new IOException("A node applied " + own + " commands, the leader " + applied + ".");
                }
                Thread.sleep(20);
                own = node.ask("facts", PATIENCE_S).get("applied");
            }
        }
        return Long.parseLong(applied);
    }

    /** Ends the processes in order, all together; gives the calls that each made where strace counted. */
    List<Map<String, Long>> end(final boolean traced) throws IOException, InterruptedException {
        for (final Node node : nodes) {
            node.release();
        }
        final List<Map<String, Long>> calls = new ArrayList<>();
        for (final Node node : nodes) {
            node.ended();
            if (traced) {
                calls.add(node.calls());
            }
        }
        return calls;
    }

    @Override
    public void close() {
        remove();
        Runtime.getRuntime().removeShutdownHook(atExit);
    }

    private void remove() {
        nodes.forEach(Node::close);
        remove(dir);
        remove(fast);
    }

    private static void remove(final Path dir) {
        try (Stream<Path> files = Files.walk(dir)) {
            for (final Path file : (Iterable<Path>) files.sorted(Comparator.reverseOrder())::iterator) {
                Files.deleteIfExists(file);
            }
        } catch (final IOException failure) {
            System.err.println(dir + " is left: " + failure);
        }
    }

    /** Free ports of each node, for TCP and for UDP: 1/2/3/4/5,... All at once, so that they differ. */
    private static String ports() throws IOException {
        final List<ServerSocket> tcp = new ArrayList<>();
        final List<DatagramSocket> udp = new ArrayList<>();
        try {
            final List<String> nodes = new ArrayList<>();
            for (int node = 0; node < NODES; node++) {
                final List<String> own = new ArrayList<>();
                for (int port = 0; port < PORTS; port++) {
                    final ServerSocket socket = new ServerSocket();
                    tcp.add(socket);
                    socket.bind(new InetSocketAddress("127.0.0.1", 0));
                    udp.add(new DatagramSocket(new InetSocketAddress("127.0.0.1", socket.getLocalPort())));
                    own.add(String.valueOf(socket.getLocalPort()));
                }
                nodes.add(String.join("/", own));
            }
            return String.join(",", nodes);
        } finally {
            for (final ServerSocket socket : tcp) {
                socket.close();
            }
            udp.forEach(DatagramSocket::close);
        }
    }
}
