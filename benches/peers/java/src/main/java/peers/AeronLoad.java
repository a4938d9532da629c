package peers;

import io.aeron.Publication;
import io.aeron.cluster.client.AeronCluster;
import io.aeron.cluster.client.EgressListener;
import io.aeron.logbuffer.Header;
import java.io.IOException;
import java.util.concurrent.TimeUnit;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.IdleStrategy;
import org.agrona.concurrent.UnsafeBuffer;

/** The load on Aeron Cluster: one client in the leader's process, over shared memory in both directions, one thread. */
final class AeronLoad implements AutoCloseable, EgressListener {
    /** How long the last commands may take once the run is over, in nanoseconds. */
    private static final long PATIENCE_NS = TimeUnit.SECONDS.toNanos(30);
    private static final boolean EGRESS = Options.setting("AERON_ANSWER", "direct").equals("egress");

    private final AeronService service;
    private final Clock clock;
    private final UnsafeBuffer command;
    private final AeronCluster client;
    private final long appliedBefore;
    private long submitted;
    private long answered;

    AeronLoad(final String aeronDir, final AeronService service, final int bytes, final Clock clock) {
        this.service = service;
        this.clock = clock;
        command = new UnsafeBuffer(new byte[bytes]);
        appliedBefore = service.applied();
        client = AeronCluster.connect(new AeronCluster.Context()
            .aeronDirectoryName(aeronDir)
            .ingressChannel("aeron:ipc?term-length=16m")
            .egressChannel("aeron:ipc?term-length=16m")
            .isIngressExclusive(true)
            .egressListener(this));
    }

    void run(final int inFlight) throws IOException {
        final IdleStrategy idle = AeronPeer.idle().get();
        clock.start();
        service.direct(EGRESS ? null : clock);
        long now = System.nanoTime();
        while (clock.running(now)) {
            final int work = submit(inFlight) + poll();
            idle.idle(work);
            now = System.nanoTime();
        }
        final long limit = now + PATIENCE_NS;
        while (answered() < submitted) {
            idle.idle(poll());
            if (System.nanoTime() - limit > 0) {
                throw new IOException(submitted - answered() + " commands got no answer.");
            }
        }
    }

    private int submit(final int inFlight) throws IOException {
        int sent = 0;
        while (submitted - answered() < inFlight) {
            command.putLong(0, System.nanoTime());
            final long position = client.offer(command, 0, command.capacity());
            if (position < 0) {
                if (position == Publication.CLOSED || position == Publication.NOT_CONNECTED) {
                    throw new IOException("The session is gone: " + Publication.errorString(position));
                }
                return sent;
            }
            submitted++;
            sent++;
        }
        return sent;
    }

    private int poll() {
        return EGRESS ? client.pollEgress() : 0;
    }

    private long answered() {
        return EGRESS ? answered : service.applied() - appliedBefore;
    }

    @Override
    public void onMessage(final long sessionId, final long timestamp, final DirectBuffer buffer, final int offset,
        final int length, final Header header) {
        answered++;
        clock.completed(buffer.getLong(offset), System.nanoTime());
    }

    @Override
    public void close() {
        service.direct(null);
        client.close();
    }
}
