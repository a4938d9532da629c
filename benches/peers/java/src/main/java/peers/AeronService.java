package peers;

import io.aeron.ExclusivePublication;
import io.aeron.Image;
import io.aeron.Publication;
import io.aeron.cluster.codecs.CloseReason;
import io.aeron.cluster.service.ClientSession;
import io.aeron.cluster.service.Cluster;
import io.aeron.cluster.service.ClusteredService;
import io.aeron.logbuffer.Header;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.IdleStrategy;

/**
 * The state machine: it counts. It answers with the first eight bytes of the command, by egress; or, when the load asks for
 * it, tells the load, which is in the leader's process, without a message.
 */
final class AeronService implements ClusteredService {
    private static final int ANSWER_BYTES = 8;

    private IdleStrategy idle;
    private volatile Cluster.Role role = Cluster.Role.FOLLOWER;
    private volatile long term = -1;
    private volatile Clock direct;
    private final AtomicLong applied = new AtomicLong();

    boolean leads() {
        return role == Cluster.Role.LEADER;
    }

    long term() {
        return term;
    }

    long applied() {
        return applied.get();
    }

    /** From now on completions go to {@code clock} and to {@link #applied}, not to egress; null: to egress. */
    void direct(final Clock clock) {
        direct = clock;
    }

    @Override
    public void onSessionMessage(final ClientSession session, final long timestamp, final DirectBuffer buffer,
        final int offset, final int length, final Header header) {
        applied.lazySet(applied.get() + 1);
        final Clock clock = direct;
        if (clock != null) {
            clock.completed(buffer.getLong(offset), System.nanoTime());
            return;
        }
        if (session == null) {
            return;
        }
        idle.reset();
        long position = session.offer(buffer, offset, ANSWER_BYTES);
        while (position < 0 && !session.isClosing() && position != Publication.CLOSED
            && position != Publication.NOT_CONNECTED) {
            idle.idle();
            position = session.offer(buffer, offset, ANSWER_BYTES);
        }
    }

    @Override
    public void onStart(final Cluster started, final Image snapshot) {
        idle = started.idleStrategy();
        role = started.role();
    }

    @Override
    public void onRoleChange(final Cluster.Role now) {
        role = now;
    }

    @Override
    public void onNewLeadershipTermEvent(final long leadershipTermId, final long logPosition, final long timestamp,
        final long termBaseLogPosition, final int leaderMemberId, final int logSessionId, final TimeUnit timeUnit,
        final int appVersion) {
        term = leadershipTermId;
    }

    @Override
    public void onSessionOpen(final ClientSession session, final long timestamp) {
        // Nothing is kept of a session.
    }

    @Override
    public void onSessionClose(final ClientSession session, final long timestamp, final CloseReason reason) {
        // Nothing is kept of a session.
    }

    @Override
    public void onTimerEvent(final long correlationId, final long timestamp) {
        // No timer is set.
    }

    @Override
    public void onTakeSnapshot(final ExclusivePublication snapshot) {
        // No snapshot is asked for while measuring.
    }

    @Override
    public void onTerminate(final Cluster ended) {
        // The process ends by itself.
    }
}
