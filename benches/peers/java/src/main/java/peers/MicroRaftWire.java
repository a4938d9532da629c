package peers;

import io.microraft.RaftEndpoint;
import io.microraft.RaftNode;
import io.microraft.model.message.RaftMessage;
import io.microraft.transport.Transport;
import java.io.EOFException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.List;

/**
 * TCP for MicroRaft: the node's thread writes a message straight into the socket, without a thread between; one thread
 * reads each connection. A message that cannot be sent is dropped: the algorithm repeats it.
 */
final class MicroRaftWire implements Transport, AutoCloseable {
    /** Largest message, in bytes. */
    private static final int FRAME_MAX = 8 * 1024 * 1024;
    private static final int SOCKET_BUFFER = 4 * 1024 * 1024;

    private final MicroRaftCodec codec;
    private final Options options;
    private final SocketChannel[] connections;
    private final ByteBuffer out = ByteBuffer.allocateDirect(FRAME_MAX);
    private final ServerSocketChannel server;

    MicroRaftWire(final Options options, final List<RaftEndpoint> members) throws IOException {
        this.options = options;
        codec = new MicroRaftCodec(members);
        connections = new SocketChannel[members.size()];
        server = ServerSocketChannel.open();
        server.bind(new InetSocketAddress("127.0.0.1", options.ports().get(options.index()).get(0)));
    }

    /** Gives what arrives to {@code node}. */
    void serve(final RaftNode node) {
        start("accept", () -> {
            while (true) {
                final SocketChannel connection = server.accept();
                start("read", () -> read(connection, node));
            }
        });
    }

    /** Only the node's thread sends. */
    @Override
    public void send(final RaftEndpoint target, final RaftMessage message) {
        final int number = (Integer) target.getId();
        out.clear().position(4);
        codec.write(message, out);
        out.putInt(0, out.position() - 4).flip();
        try {
            final SocketChannel connection = connection(number);
            while (out.hasRemaining()) {
                connection.write(out);
            }
        } catch (final IOException failure) {
            System.err.println("To " + number + ": " + failure);
            disconnect(number);
        }
    }

    @Override
    public boolean isReachable(final RaftEndpoint endpoint) {
        return true;
    }

    private SocketChannel connection(final int number) throws IOException {
        if (connections[number] == null) {
            final SocketChannel connection = SocketChannel.open();
            connections[number] = connection;
            connection.setOption(StandardSocketOptions.TCP_NODELAY, true);
            connection.setOption(StandardSocketOptions.SO_SNDBUF, SOCKET_BUFFER);
            connection.connect(new InetSocketAddress("127.0.0.1", options.ports().get(number).get(0)));
        }
        return connections[number];
    }

    private void disconnect(final int number) {
        final SocketChannel connection = connections[number];
        connections[number] = null;
        try {
            if (connection != null) {
                connection.close();
            }
        } catch (final IOException failure) {
            System.err.println("Closing the connection to " + number + ": " + failure);
        }
    }

    private void read(final SocketChannel connection, final RaftNode node) throws IOException {
        try (connection) {
            final ByteBuffer in = ByteBuffer.allocateDirect(FRAME_MAX);
            while (true) {
                if (connection.read(in) < 0) {
                    throw new EOFException("The other side closed.");
                }
                in.flip();
                while (in.remaining() >= 4 && in.remaining() >= 4 + in.getInt(in.position())) {
                    in.getInt();
                    node.handle(codec.read(in));
                }
                in.compact();
            }
        }
    }

    /** Work that ends by the end of its connection. */
    private interface Work {
        void run() throws IOException;
    }

    private static void start(final String name, final Work work) {
        final Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (final ClosedChannelException | EOFException ended) {
                System.err.println(name + " ended.");
            } catch (final IOException failure) {
                System.err.println(name + ": " + failure);
            }
        }, name);
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void close() throws IOException {
        server.close();
        for (int number = 0; number < connections.length; number++) {
            disconnect(number);
        }
    }
}
