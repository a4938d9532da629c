package quorate.jni;

import java.nio.ByteBuffer;

/**
 * The natives: everything that crosses the boundary to the Rust engine. Call {@link NativeLibrary#load()} first.
 *
 * <p>A session is known by its handle, a number that is never used twice. The engine never calls Java and none of its
 * threads attaches to the JVM: Java submits, and polls two queues of records, {@link #EVENTS} and {@link #APPLY}, each
 * from one thread at a time. Records are little-endian: a length (int, of what follows), a type (byte), fields.
 *
 * <pre>
 * EVENTS  COMPLETION 1: ticket long, status byte (0, or a {@link Code}), payload (the result, or a message in UTF-8)
 *         LEADER     2: EDN map in UTF-8
 *         LOG        3: level byte (1 error ... 5 trace), target (short length, UTF-8), message in UTF-8
 *         WATCH      4: watch long, event
 *         CLOSED     5: nothing; the last record
 * APPLY   ENTRY      1: index long, term long, time_ms long, seed long, local byte, node long, incarnation long,
 *                       sequence long, body
 *         SNAPSHOT   2: ticket long, index long, path in UTF-8
 *         INSTALL    3: ticket long, index long, path in UTF-8
 *         CLOSED     4: nothing; the last record
 * </pre>
 *
 * <p>Every native throws {@link QuorateException}, with {@link Code#INVALID} for null or impossible arguments and for a
 * handle that never was, {@link Code#CLOSED} for one that was closed, {@link Code#INTERNAL} when the native code
 * panicked. {@link #close} may be called at any time, from any thread, more than once; after it {@link #poll} brings
 * what is left, CLOSED last, and then -1 for ever.
 *
 * <p>From JDK 24 on the JVM warns when native code is loaded, unless it is started with
 * {@code --enable-native-access=ALL-UNNAMED} or from a jar with {@code Enable-Native-Access: ALL-UNNAMED} in its manifest.
 */
public final class Native {
    /** The queue of completions and other events. */
    public static final int EVENTS = 1;
    /** The queue of committed entries for a state machine in the JVM. */
    public static final int APPLY = 2;
    /** Smallest capacity of a buffer for {@link #attach}, in bytes. */
    public static final int BUFFER_BYTES_MIN = 16 << 10;

    private Native() {
    }

    /**
     * Starts a session.
     *
     * @param configEdn an EDN map in UTF-8, such as
     *     {@code {:name "a" :servers {"a" "127.0.0.1:7001"} :data-dir "data"}} or {@code {:engine :echo}}; keys:
     *     {@code :engine} (:node, :echo), {@code :log-level} (:off :error :warn :info :debug :trace; the environment's
     *     QUORATE_LOG outranks it), {@code :name}; for a node {@code :servers}, {@code :listen}, {@code :data-dir},
     *     {@code :machine} (:kv, :hosted), {@code :heartbeat-ms}, {@code :election-timeout-ms},
     *     {@code :snapshot-commands}, {@code :log-keep-entries}, {@code :join-only}, {@code :tls},
     *     {@code :insecure}, {@code :forward}, {@code :retry-ms}; for an echo {@code :mirror}, {@code :in-flight}
     * @return a handle, greater than 0
     * @throws QuorateException when the configuration is wrong (naming the key) or the engine cannot start
     */
    public static native long open(byte[] configEdn);

    /**
     * Gives the polls of a queue the memory that they write to. Its address is taken once and the buffer kept from the
     * collector until another is attached or the queue has ended. Do this before the first submission: a queue
     * without a buffer counts as one that nobody listens to. Still possible after {@link #close}, until the queue has
     * ended, so that a large record can be taken.
     *
     * @param handle a session
     * @param queue {@link #EVENTS} or {@link #APPLY}
     * @param direct a direct, writable buffer of at least {@link #BUFFER_BYTES_MIN} bytes; its position and limit are
     *     not looked at. Nobody else may write to it while a poll runs.
     * @throws QuorateException {@link Code#INVALID} for an unfit buffer or while another thread polls this queue;
     *     {@link Code#CLOSED} when the queue has ended
     */
    public static native void attach(long handle, int queue, ByteBuffer direct);

    /**
     * Submits a request; never waits. Each ticket is answered exactly once, by a COMPLETION or, in a state machine in
     * the JVM, by its ENTRY.
     *
     * @param handle a session
     * @param kind 1 command, 2 read, 3 barrier, 4 membership, 5 snapshot
     * @param body what that kind takes; copied once, before this returns
     * @param timeoutMs the answer comes at the latest after so many milliseconds; from 0 on
     * @return the ticket
     * @throws QuorateException and then nothing was registered: {@link Code#OVERLOADED}, {@link Code#TOO_LARGE},
     *     {@link Code#CLOSED}, {@link Code#INVALID}
     */
    public static native long submit(long handle, int kind, byte[] body, long timeoutMs);

    /**
     * Submits, as {@link #submit}, the body that begins with the byte {@code first} and goes on with {@code rest}: for who has
     * only the rest as an array.
     *
     * @param handle a session
     * @param kind as for {@link #submit}
     * @param first from 0 to 255
     * @param rest copied once, before this returns
     * @param timeoutMs as for {@link #submit}
     * @return the ticket
     * @throws QuorateException as {@link #submit}
     */
    public static native long submitPrefixed(long handle, int kind, int first, byte[] rest, long timeoutMs);

    /**
     * Takes the next records of a queue, as many whole ones as fit, from the start of the attached buffer. Blocks the
     * calling thread only. One thread a queue at a time.
     *
     * @param handle a session
     * @param queue {@link #EVENTS} or {@link #APPLY}
     * @param acknowledged for {@link #APPLY}, the index up to which the state machine has applied; else 0
     * @param waitMs waits so many milliseconds for the first record; from 0 on
     * @return the number of bytes; 0 when none came in time; -1 when the queue has ended; -n (n &gt; 1) when the next
     *     record alone needs n bytes: attach a larger buffer and poll again
     * @throws QuorateException {@link Code#INVALID} when no buffer is attached or another thread polls this queue
     */
    public static native int poll(long handle, int queue, long acknowledged, long waitMs);

    /**
     * Asks what is answered at once from memory.
     *
     * @param handle a session
     * @param op 1 status, 2 outcome, 3 snapshot done, 4 install done, 5 watch, 6 unwatch, 7 metrics, 8 identity
     * @param body what that operation takes; empty for none
     * @return the answer
     * @throws QuorateException when the operation or its body is wrong, or the session is closed
     */
    public static native byte[] control(long handle, int op, byte[] body);

    /**
     * Stops a session: every pending ticket is answered with {@link Code#CLOSED}, then both queues end. Returns when
     * its threads have ended, within seconds. Does nothing when it was called before.
     *
     * @param handle a session, also one that is closed
     * @throws QuorateException {@link Code#INVALID} for a handle that never was
     */
    public static native void close(long handle);

    /**
     * The version of the native library.
     *
     * @return such as {@code 0.1.0}
     */
    public static native String version();
}
