package peers;

import java.io.IOException;

/** One node of a system that is measured, as the protocol of {@link Main} sees it. */
interface Peer extends AutoCloseable {
    /** Whether this node leads now. */
    boolean leads();

    /** The term (or what the system has for it): a run in which it changes means nothing. */
    long term();

    /** How many commands this node has applied since it started. */
    long applied();

    /**
     * Keeps {@code inFlight} commands in flight on this node, which leads, and waits for the last of them.
     *
     * @param inFlight commands in flight
     * @param bytes bytes of a command, 16 or more
     * @param clock says when measuring begins and ends
     */
    void load(int inFlight, int bytes, Clock clock) throws IOException, InterruptedException;

    @Override
    void close() throws IOException, InterruptedException;
}
