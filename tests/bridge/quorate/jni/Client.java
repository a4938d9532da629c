package quorate.jni;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** A session and one thread that polls its events, as the tests use it. */
final class Client implements AutoCloseable {
    /** What a COMPLETION carries. */
    static final class Answer {
        final long ticket;
        final int status;
        final byte[] payload;

        Answer(long ticket, int status, byte[] payload) {
            this.ticket = ticket;
            this.status = status;
            this.payload = payload;
        }

        String text() {
            return new String(payload, StandardCharsets.UTF_8);
        }
    }

    static final int COMMAND = 1;
    static final long LONG_MS = 60_000;

    final long handle;
    private final List<Answer> answers = new ArrayList<>();
    private final List<String> log = new ArrayList<>();
    private final Thread poller;
    private boolean ended;
    private Throwable broken;

    Client(String config) {
        this(config, Native.BUFFER_BYTES_MIN);
    }

    Client(String config, int bufferBytes) {
        handle = open(config);
        ByteBuffer buffer = ByteBuffer.allocateDirect(bufferBytes).order(ByteOrder.LITTLE_ENDIAN);
        Native.attach(handle, Native.EVENTS, buffer);
        poller = new Thread(() -> pollAll(buffer), "events-" + handle);
        poller.setDaemon(true);
        poller.start();
    }

    static long open(String config) {
        return Native.open(config.getBytes(StandardCharsets.UTF_8));
    }

    long submit(String body) {
        return submit(body.getBytes(StandardCharsets.UTF_8));
    }

    long submit(byte[] body) {
        return Native.submit(handle, COMMAND, body, LONG_MS);
    }

    /** Submits, waiting while the window is full. */
    long submitPatiently(byte[] body) {
        while (true) {
            try {
                return submit(body);
            } catch (QuorateException e) {
                if (e.kind() != Code.OVERLOADED) {
                    throw e;
                }
                Thread.yield();
            }
        }
    }

    /** All answers so far, once there are {@code count} of them or the queue has ended. */
    synchronized List<Answer> await(int count) throws InterruptedException {
        long until = System.currentTimeMillis() + LONG_MS;
        while (answers.size() < count && !ended && broken == null && System.currentTimeMillis() < until) {
            wait(100);
        }
        if (broken != null) {
            throw new AssertionError("the poller broke", broken);
        }
        return new ArrayList<>(answers);
    }

    synchronized boolean logged(String text) throws InterruptedException {
        long until = System.currentTimeMillis() + 10_000;
        while (!log.contains(text) && System.currentTimeMillis() < until) {
            wait(100);
        }
        return log.contains(text);
    }

    /** Closes; then all answers there ever were. */
    List<Answer> closeAndDrain() throws InterruptedException {
        Native.close(handle);
        poller.join(LONG_MS);
        if (poller.isAlive()) {
            throw new AssertionError("the queue does not end");
        }
        return await(Integer.MAX_VALUE);
    }

    @Override
    public void close() {
        Native.close(handle);
    }

    private void pollAll(ByteBuffer first) {
        ByteBuffer buffer = first;
        try {
            while (true) {
                int bytes = Native.poll(handle, Native.EVENTS, 0, 1_000);
                if (bytes == -1) {
                    break;
                } else if (bytes < 0) {
                    buffer = ByteBuffer.allocateDirect(-bytes).order(ByteOrder.LITTLE_ENDIAN);
                    Native.attach(handle, Native.EVENTS, buffer);
                } else if (bytes > 0) {
                    read(buffer, bytes);
                }
            }
            synchronized (this) {
                ended = true;
                notifyAll();
            }
        } catch (Throwable e) {
            synchronized (this) {
                broken = e;
                notifyAll();
            }
        }
    }

    private synchronized void read(ByteBuffer buffer, int bytes) {
        buffer.clear().limit(bytes);
        while (buffer.hasRemaining()) {
            int length = buffer.getInt();
            int end = buffer.position() + length;
            switch (buffer.get()) {
                case 1:
                    long ticket = buffer.getLong();
                    int status = buffer.get();
                    answers.add(new Answer(ticket, status, rest(buffer, end)));
                    break;
                case 3:
                    buffer.get();
                    buffer.position(buffer.getShort() + buffer.position());
                    log.add(new String(rest(buffer, end), StandardCharsets.UTF_8));
                    break;
                case 5:
                    if (buffer.position() != bytes) {
                        throw new AssertionError("CLOSED is not the last record");
                    }
                    break;
                default:
                    throw new AssertionError("an unknown record");
            }
        }
        notifyAll();
    }

    private static byte[] rest(ByteBuffer buffer, int end) {
        byte[] rest = new byte[end - buffer.position()];
        buffer.get(rest);
        return rest;
    }
}
