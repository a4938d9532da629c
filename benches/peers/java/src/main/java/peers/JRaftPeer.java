package peers;

import com.alipay.sofa.jraft.Closure;
import com.alipay.sofa.jraft.Iterator;
import com.alipay.sofa.jraft.Node;
import com.alipay.sofa.jraft.RaftGroupService;
import com.alipay.sofa.jraft.Status;
import com.alipay.sofa.jraft.conf.Configuration;
import com.alipay.sofa.jraft.core.StateMachineAdapter;
import com.alipay.sofa.jraft.entity.PeerId;
import com.alipay.sofa.jraft.entity.Task;
import com.alipay.sofa.jraft.option.NodeOptions;
import com.alipay.sofa.jraft.option.RaftOptions;
import java.io.IOException;
import java.nio.ByteBuffer;

/** SOFAJRaft: log in RocksDB, written with its sync option ({@code sync}); term and vote synced too ({@code syncMeta}). */
final class JRaftPeer implements Peer {
    private static final String GROUP = "peers";
    private static final int BATCH = 1024;

    private final RaftGroupService group;
    private final Node node;
    private final Counter counter = new Counter();

    JRaftPeer(final Options options) throws IOException {
        final Configuration members = new Configuration();
        for (int i = 0; i < options.ports().size(); i++) {
            members.addPeer(PeerId.parsePeer(options.address(i, 0)));
        }
        final RaftOptions raft = new RaftOptions();
        raft.setSync(true);
        raft.setSyncMeta(true);
        raft.setApplyBatch(Integer.parseInt(Options.setting("JRAFT_BATCH", "128")));
        raft.setMaxEntriesSize(BATCH);
        raft.setReplicatorPipeline(true);
        final NodeOptions node = new NodeOptions();
        node.setFsm(counter);
        node.setInitialConf(members);
        node.setRaftOptions(raft);
        node.setElectionTimeoutMs(2_000);
        // No snapshot while measuring.
        node.setSnapshotIntervalSecs(0);
        node.setLogUri(options.dir().resolve("log").toString());
        node.setRaftMetaUri(options.dir().resolve("meta").toString());
        node.setSnapshotUri(options.dir().resolve("snapshot").toString());
        final PeerId self = PeerId.parsePeer(options.address(options.index(), 0));
        group = new RaftGroupService(GROUP, self, node);
        this.node = group.start();
    }

    @Override
    public boolean leads() {
        return node.isLeader();
    }

    @Override
    public long term() {
        return counter.term;
    }

    @Override
    public long applied() {
        return counter.applied;
    }

    @Override
    public void load(final int inFlight, final int bytes, final Clock clock) throws IOException, InterruptedException {
        final byte[] command = new byte[bytes];
        ClosedLoop.run(inFlight, clock, slot -> node.apply(new Task(ByteBuffer.wrap(command), new Done(slot))));
    }

    @Override
    public void close() throws InterruptedException {
        group.shutdown();
        group.join();
    }

    private record Done(ClosedLoop.Slot slot) implements Closure {
        @Override
        public void run(final Status status) {
            if (status.isOk()) {
                slot.completed();
            } else {
                slot.failed(new IOException(status.toString()));
            }
        }
    }

    /** The state machine: it counts. */
    private static final class Counter extends StateMachineAdapter {
        private volatile long applied;
        private volatile long term;

        @Override
        public void onApply(final Iterator entries) {
            long count = applied;
            while (entries.hasNext()) {
                count++;
                if (entries.done() != null) {
                    entries.done().run(Status.OK());
                }
                entries.next();
            }
            applied = count;
        }

        @Override
        public void onLeaderStart(final long now) {
            super.onLeaderStart(now);
            term = now;
        }
    }
}
