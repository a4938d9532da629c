package quorate.jni;

import java.io.File;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;

/** The boundary under stress, on the echo engine. Each case prints a line; the exit code is 1 when one failed. */
public final class BridgeTest {
    private static final String ECHO = "{:engine :echo :in-flight 1024}";
    private static final byte[] EMPTY = new byte[0];

    private BridgeTest() {
    }

    /** Runs all cases. */
    public static void main(String[] args) throws Exception {
        NativeLibrary.load();
        Map<String, Check.Action> cases = new LinkedHashMap<>();
        cases.put("many threads, many in flight, each answered once and in order", BridgeTest::manyThreads);
        cases.put("records larger than the poll buffer", BridgeTest::largeRecords);
        cases.put("bodies whose first byte comes apart", BridgeTest::prefixedBodies);
        cases.put("close during flight", BridgeTest::closeDuringFlight);
        cases.put("use after close, double close", BridgeTest::useAfterClose);
        cases.put("closing from many threads at once", BridgeTest::closeFromManyThreads);
        cases.put("a panic inside", BridgeTest::panicInside);
        cases.put("two sessions at once", BridgeTest::twoSessions);
        cases.put("the apply queue with acknowledgements", BridgeTest::applyQueue);
        cases.put("every code arrives", BridgeTest::everyCode);
        cases.put("log lines arrive", BridgeTest::logLines);
        cases.put("a poll waits as long as told and is woken", BridgeTest::pollWaits);
        cases.put("null and garbage arguments", BridgeTest::garbageArguments);
        cases.put("unfit buffers", BridgeTest::unfitBuffers);
        cases.put("invalid configurations", BridgeTest::invalidConfigurations);
        cases.put("an attached buffer survives the collector", BridgeTest::collector);
        cases.put("opening and closing leaks no threads", BridgeTest::noLeaks);
        int failed = 0;
        for (Map.Entry<String, Check.Action> one : cases.entrySet()) {
            try {
                one.getValue().run();
                System.out.println("PASS " + one.getKey());
            } catch (Throwable e) {
                failed++;
                System.out.println("FAIL " + one.getKey());
                e.printStackTrace(System.out);
            }
        }
        System.exit(failed == 0 ? 0 : 1);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void onThreads(int count, Check.Action action) throws Exception {
        List<Throwable> failures = new ArrayList<>();
        List<Thread> threads = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            threads.add(new Thread(() -> {
                try {
                    action.run();
                } catch (Throwable e) {
                    synchronized (failures) {
                        failures.add(e);
                    }
                }
            }));
        }
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join(Client.LONG_MS);
            Check.that(!thread.isAlive(), "a thread hangs");
        }
        if (!failures.isEmpty()) {
            throw new AssertionError("on a thread", failures.get(0));
        }
    }

    private static void manyThreads() throws Exception {
        final int threads = 8;
        final int each = 10_000;
        Map<Long, String> sent = new ConcurrentHashMap<>();
        AtomicInteger names = new AtomicInteger();
        try (Client client = new Client(ECHO)) {
            onThreads(threads, () -> {
                int name = names.getAndIncrement();
                for (int n = 0; n < each; n++) {
                    String body = name + "/" + n + "/" + "x".repeat(n % 200);
                    String before = sent.put(client.submitPatiently(bytes(body)), body);
                    Check.that(before == null, "a ticket was given twice");
                }
            });
            List<Client.Answer> answers = client.await(threads * each);
            Check.equal(threads * each, answers.size(), "answers");
            long last = 0;
            for (Client.Answer answer : answers) {
                Check.equal(last + 1, answer.ticket, "the next ticket");
                last = answer.ticket;
                Check.equal(0, answer.status, "status");
                Check.equal(sent.get(answer.ticket), answer.text(), "body");
            }
        }
    }

    private static void prefixedBodies() throws Exception {
        try (Client client = new Client(ECHO)) {
            int[] sizes = {0, 1, 128, (8 << 20) - 1};
            for (int size : sizes) {
                byte[] rest = new byte[size];
                Arrays.fill(rest, (byte) 7);
                Native.submitPrefixed(client.handle, Client.COMMAND, 255, rest, Client.LONG_MS);
            }
            List<Client.Answer> answers = client.await(sizes.length);
            for (int n = 0; n < sizes.length; n++) {
                byte[] expected = new byte[sizes[n] + 1];
                Arrays.fill(expected, (byte) 7);
                expected[0] = (byte) 255;
                Check.that(Arrays.equals(expected, answers.get(n).payload), "body of " + sizes[n]);
            }
            long handle = client.handle;
            Check.refused(Code.TOO_LARGE, "at most", () -> Native.submitPrefixed(handle, 1, 2, new byte[8 << 20], 1));
            Check.refused(Code.INVALID, "null", () -> Native.submitPrefixed(handle, 1, 2, null, 1));
            for (int first : new int[] {-1, 256, Integer.MIN_VALUE}) {
                Check.refused(Code.INVALID, "" + first, () -> Native.submitPrefixed(handle, 1, first, EMPTY, 1));
            }
            Check.refused(Code.INTERNAL, "asked to panic",
                    () -> Native.submitPrefixed(handle, 1, '!', "echo panic".getBytes(), 1));
            Check.equal(sizes.length + 1L, client.submit("after"), "nothing was registered in between");
        }
    }

    private static void largeRecords() throws Exception {
        try (Client client = new Client(ECHO)) {
            int[] sizes = {10, 16_000, 17_000, 1 << 20, 5, 8 << 20, 100_000, 1};
            byte[][] bodies = new byte[sizes.length][];
            for (int n = 0; n < sizes.length; n++) {
                bodies[n] = new byte[sizes[n]];
                Arrays.fill(bodies[n], (byte) (n + 1));
                client.submit(bodies[n]);
            }
            client.submit("!echo large 20000000");
            List<Client.Answer> answers = client.await(sizes.length + 1);
            for (int n = 0; n < sizes.length; n++) {
                Check.that(Arrays.equals(bodies[n], answers.get(n).payload), "body " + n);
            }
            Check.equal(20_000_000, answers.get(sizes.length).payload.length, "the huge answer");
            Check.refused(Code.TOO_LARGE, "at most", () -> client.submit(new byte[(8 << 20) + 1]));
        }
    }

    private static void closeDuringFlight() throws Exception {
        for (int round = 0; round < 20; round++) {
            Client client = new Client("{:engine :echo}");
            Map<Long, Boolean> accepted = new ConcurrentHashMap<>();
            CountDownLatch warm = new CountDownLatch(2_000);
            Thread closer = new Thread(() -> {
                try {
                    warm.await();
                    client.close();
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
            });
            closer.start();
            onThreads(4, () -> {
                try {
                    for (int n = 0; ; n++) {
                        String body = n % 3 == 0 ? "!echo delay 60000" : "plain " + n;
                        accepted.put(client.submitPatiently(bytes(body)), true);
                        warm.countDown();
                    }
                } catch (QuorateException e) {
                    Check.equal(Code.CLOSED, e.kind(), "why it ended");
                }
            });
            closer.join();
            List<Client.Answer> answers = client.closeAndDrain();
            Check.equal(accepted.size(), answers.size(), "answers");
            int closed = 0;
            for (Client.Answer answer : answers) {
                Check.that(accepted.remove(answer.ticket) != null, "a ticket was answered twice");
                closed += answer.status == Code.CLOSED.number() ? 1 : 0;
                Check.that(answer.status == 0 || answer.status == Code.CLOSED.number(), "status " + answer.status);
            }
            Check.that(closed > 0, "nothing was in flight");
        }
    }

    private static void useAfterClose() throws Exception {
        Client client = new Client(ECHO);
        client.submit("before");
        client.closeAndDrain();
        long handle = client.handle;
        Check.refused(Code.CLOSED, "closed", () -> client.submit("after"));
        Check.refused(Code.CLOSED, "closed", () -> Native.control(handle, 1, EMPTY));
        ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 20);
        Check.refused(Code.CLOSED, "closed", () -> Native.attach(handle, Native.EVENTS, buffer));
        for (int n = 0; n < 3; n++) {
            Check.equal(-1, Native.poll(handle, Native.EVENTS, 0, 60_000), "a poll");
            Native.close(handle);
        }
    }

    private static void closeFromManyThreads() throws Exception {
        Client client = new Client(ECHO);
        for (int n = 0; n < 100; n++) {
            client.submit("!echo delay 60000");
        }
        onThreads(8, client::close);
        Check.equal(100, client.closeAndDrain().size(), "answers");
    }

    private static void panicInside() throws Exception {
        try (Client client = new Client(ECHO)) {
            for (int n = 0; n < 50; n++) {
                Check.refused(Code.INTERNAL, "asked to panic", () -> client.submit("!echo panic"));
            }
            Check.equal(1L, client.submit("after"), "the first ticket");
            Check.equal("after", client.await(1).get(0).text(), "body");
        }
    }

    private static void twoSessions() throws Exception {
        try (Client one = new Client("{:engine :echo :name \"one\"}"); Client two = new Client("{:engine :echo :name \"two\"}")) {
            for (int n = 0; n < 1_000; n++) {
                one.submitPatiently(bytes("one " + n));
                two.submitPatiently(bytes("two " + n));
            }
            List<Client.Answer> ofOne = one.await(1_000);
            Native.close(one.handle);
            two.submit("two 1000");
            List<Client.Answer> ofTwo = two.await(1_001);
            for (int n = 0; n < 1_000; n++) {
                Check.equal("one " + n, ofOne.get(n).text(), "body");
                Check.equal("two " + n, ofTwo.get(n).text(), "body");
            }
            byte[] identity = Native.control(two.handle, 8, EMPTY);
            Check.equal("two", new String(identity, 16, identity.length - 16, StandardCharsets.UTF_8), "name");
        }
    }

    private static void applyQueue() throws Exception {
        final int count = 20_000;
        try (Client client = new Client("{:engine :echo :mirror true}")) {
            ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 16).order(ByteOrder.LITTLE_ENDIAN);
            Native.attach(client.handle, Native.APPLY, buffer);
            Thread submitter = new Thread(() -> {
                for (int n = 1; n <= count; n++) {
                    client.submitPatiently(bytes("entry " + n));
                }
            });
            submitter.start();
            long index = 0;
            while (index < count) {
                int bytes = Native.poll(client.handle, Native.APPLY, index, 10_000);
                Check.that(bytes > 0, "entries are missing after " + index);
                buffer.clear().limit(bytes);
                while (buffer.hasRemaining()) {
                    int end = buffer.getInt() + buffer.position();
                    Check.equal((byte) 1, buffer.get(), "type");
                    Check.equal(++index, buffer.getLong(), "index");
                    buffer.position(buffer.position() + 8 + 8 + 8 + 1 + 8 + 8);
                    Check.equal(index, buffer.getLong(), "sequence");
                    byte[] body = new byte[end - buffer.position()];
                    buffer.get(body);
                    Check.equal("entry " + index, new String(body, StandardCharsets.UTF_8), "body");
                }
            }
            Check.equal(count, client.await(count).size(), "answers");
            Native.close(client.handle);
            Check.equal(5, Native.poll(client.handle, Native.APPLY, index, 10_000), "the CLOSED record");
            Check.equal(-1, Native.poll(client.handle, Native.APPLY, index, 10_000), "the end");
        }
    }

    private static void everyCode() throws Exception {
        try (Client client = new Client(ECHO)) {
            for (Code code : Code.values()) {
                client.submit("!echo fail " + code.number());
            }
            List<Client.Answer> answers = client.await(Code.values().length);
            for (Code code : Code.values()) {
                Check.equal(code, Code.of(answers.get(code.ordinal()).status), "code");
            }
        }
    }

    private static void logLines() throws Exception {
        try (Client client = new Client(ECHO)) {
            client.submit("!echo log späte Nachricht 🦀");
            Check.that(client.logged("späte Nachricht 🦀"), "the line did not come");
        }
    }

    private static void pollWaits() throws Exception {
        long handle = Client.open(ECHO);
        Native.attach(handle, Native.EVENTS, ByteBuffer.allocateDirect(Native.BUFFER_BYTES_MIN));
        long started = System.nanoTime();
        Check.equal(0, Native.poll(handle, Native.EVENTS, 0, 250), "an empty poll");
        Check.that(System.nanoTime() - started >= 250_000_000L, "it did not wait");
        Thread closer = new Thread(() -> {
            while (true) {
                try {
                    Native.poll(handle, Native.EVENTS, 0, 0);
                } catch (QuorateException e) {
                    Native.close(handle);
                    return;
                }
            }
        });
        closer.start();
        int bytes = 0;
        while (bytes == 0) {
            try {
                bytes = Native.poll(handle, Native.EVENTS, 0, 60_000);
            } catch (QuorateException e) {
                Check.equal(Code.INVALID, e.kind(), "two polls at once");
            }
        }
        Check.equal(5, bytes, "the CLOSED record");
        Check.that(System.nanoTime() - started < 30_000_000_000L, "it was not woken");
        Check.equal(-1, Native.poll(handle, Native.EVENTS, 0, 60_000), "the end");
        closer.join();
    }

    private static void garbageArguments() throws Exception {
        Check.refused(Code.INVALID, "null", () -> Native.open(null));
        try (Client client = new Client(ECHO)) {
            long handle = client.handle;
            Check.refused(Code.INVALID, "null", () -> Native.submit(handle, 1, null, 1));
            Check.refused(Code.INVALID, "null", () -> Native.control(handle, 1, null));
            Check.refused(Code.INVALID, "null", () -> Native.attach(handle, Native.EVENTS, null));
            Check.refused(Code.INVALID, "timeout", () -> Native.submit(handle, 1, EMPTY, -1));
            Check.refused(Code.INVALID, "wait", () -> Native.poll(handle, Native.APPLY, 0, -1));
            Check.refused(Code.INVALID, "acknowledged", () -> Native.poll(handle, Native.APPLY, -1, 0));
            for (int number : new int[] {0, 99, 255, 256, 257, -1, Integer.MIN_VALUE, Integer.MAX_VALUE}) {
                Check.refused(Code.INVALID, "" + number, () -> Native.submit(handle, number, EMPTY, 1));
                Check.refused(Code.INVALID, "" + number, () -> Native.control(handle, number, EMPTY));
                Check.refused(Code.INVALID, "" + number, () -> Native.poll(handle, number, 0, 0));
                ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 16);
                Check.refused(Code.INVALID, "" + number, () -> Native.attach(handle, number, buffer));
            }
            for (long never : new long[] {0, -1, handle + 1, Long.MIN_VALUE, Long.MAX_VALUE}) {
                Check.refused(Code.INVALID, "handle " + never, () -> Native.submit(never, 1, EMPTY, 1));
                Check.refused(Code.INVALID, "handle " + never, () -> Native.control(never, 1, EMPTY));
                Check.refused(Code.INVALID, "handle " + never, () -> Native.poll(never, 1, 0, 0));
                Check.refused(Code.INVALID, "handle " + never, () -> Native.close(never));
                ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 16);
                Check.refused(Code.INVALID, "handle " + never, () -> Native.attach(never, 1, buffer));
            }
            Check.refused(Code.INVALID, "No buffer", () -> Native.poll(handle, Native.APPLY, 0, 0));
            Check.equal(1L, Native.submit(handle, 1, EMPTY, Long.MAX_VALUE), "nothing was registered before");
            client.submit("!echo delay 9223372036854775807");
            Check.equal(1, client.await(1).size(), "answers");
        }
    }

    private static void unfitBuffers() throws Exception {
        try (Client client = new Client(ECHO)) {
            long handle = client.handle;
            Check.refused(Code.INVALID, "not direct", () -> Native.attach(handle, 2, ByteBuffer.allocate(1 << 16)));
            Check.refused(Code.INVALID, "bytes", () -> Native.attach(handle, 2, ByteBuffer.allocateDirect(100)));
            Check.refused(Code.INVALID, "empty", () -> Native.attach(handle, 2, ByteBuffer.allocateDirect(0)));
            ByteBuffer readOnly = ByteBuffer.allocateDirect(1 << 16).asReadOnlyBuffer();
            Check.refused(Code.INVALID, "read-only", () -> Native.attach(handle, 2, readOnly));
        }
    }

    private static void invalidConfigurations() throws Exception {
        String[][] wrong = {
            {"", "one EDN map"},
            {"nil", "one EDN map"},
            {"{:engine :echo", "closed"},
            {"{:engine :echo} {}", "one EDN map"},
            {"{:engine :echo :name}", "without a value"},
            {"{:engine :echo :in-fligth 3}", ":in-flight?"},
            {"{:engine :echo :späße🦀 3}", ":späße🦀"},
            {"{:engine :echo :in-flight \"3\"}", ":in-flight must be"},
            {"{:engine :echo :name \"a\\qb\"}", "cannot be read"},
            {"{:name \"a\" :servers {\"b\" \"127.0.0.1:1\"} :data-dir \"d\"}", "not among the servers"},
            {"{:name \"a\" :servers {\"a\" \"nowhere\"} :data-dir \"d\"}", "host:port"},
            {"[".repeat(100_000), "nested deeper"},
        };
        for (String[] one : wrong) {
            Check.refused(Code.INVALID, one[1], () -> Client.open(one[0]));
        }
        Check.refused(Code.INVALID, "UTF-8", () -> Native.open(new byte[] {(byte) 0xff, (byte) 0xfe}));
        Check.refused(Code.INVALID, "", () -> Native.open(new byte[1 << 16]));
    }

    private static void collector() throws Exception {
        long handle = Client.open(ECHO);
        for (int round = 0; round < 20; round++) {
            Native.attach(handle, Native.EVENTS, ByteBuffer.allocateDirect(1 << 20));
            System.gc();
            byte[][] garbage = new byte[64][];
            for (int n = 0; n < garbage.length; n++) {
                garbage[n] = new byte[1 << 16];
                Native.submit(handle, 1, garbage[n], 60_000);
            }
            int answered = 0;
            while (answered < 64 * ((1 << 16) + 14)) {
                int bytes = Native.poll(handle, Native.EVENTS, 0, 10_000);
                Check.that(bytes > 0, "answers are missing");
                answered += bytes;
            }
        }
        Native.close(handle);
    }

    private static void noLeaks() throws Exception {
        int before = -1;
        for (int round = 0; round < 300; round++) {
            Client client = new Client(ECHO);
            client.submit("x");
            client.closeAndDrain();
            if (round == 20) {
                before = threads();
            }
        }
        Check.that(threads() <= before + 8, "threads grew from " + before + " to " + threads());
    }

    private static int threads() {
        String[] tasks = new File("/proc/self/task").list();
        return tasks == null ? 0 : tasks.length;
    }
}
