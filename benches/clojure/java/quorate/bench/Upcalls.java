package quorate.bench;

/** The alternative to polling that the benchmark of the bridge measures; only in a library built with the feature {@code upcalls}. */
public final class Upcalls {
    private Upcalls() {
    }

    /** Who is called for each completion. */
    public interface Sink {
        /** The submission {@code ticket} was answered: {@code status} 0 and the result, or a code and its message. */
        void completed(long ticket, int status, byte[] payload);
    }

    /** An echo, for {@code quorate.jni.Native}'s submit and close, and for {@link #run}. */
    public static native long open();

    /** Calls {@code sink} for each completion of the echo {@code handle}, on this thread, until it is closed. */
    public static native void run(long handle, Sink sink);
}
