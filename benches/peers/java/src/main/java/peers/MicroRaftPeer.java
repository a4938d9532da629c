package peers;

import io.microraft.RaftConfig;
import io.microraft.RaftEndpoint;
import io.microraft.RaftNode;
import io.microraft.executor.RaftNodeExecutor;
import io.microraft.model.impl.DefaultRaftModelFactory;
import io.microraft.statemachine.StateMachine;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/** MicroRaft, which is only the algorithm: with a store, a codec and TCP written for it here, as lean as we could. */
final class MicroRaftPeer implements Peer {
    /** Entries between snapshots; the store's two files must hold as many. */
    private static final int SNAPSHOT_ENTRIES = 100_000;

    /** A node by its number. */
    record Endpoint(Integer number) implements RaftEndpoint {
        @Override
        public Object getId() {
            return number;
        }
    }

    private final Counter counter = new Counter();
    private final Threads threads = new Threads();
    private final MicroRaftStore store;
    private final MicroRaftWire wire;
    private final RaftNode node;
    private final Endpoint self;

    MicroRaftPeer(final Options options) throws IOException {
        final List<RaftEndpoint> members = new ArrayList<>();
        for (int i = 0; i < options.ports().size(); i++) {
            members.add(new Endpoint(i));
        }
        self = (Endpoint) members.get(options.index());
        store = new MicroRaftStore(options.dir());
        wire = new MicroRaftWire(options, members);
        node = RaftNode.newBuilder()
            .setGroupId("peers")
            .setLocalEndpoint(self)
            .setInitialGroupMembers(members)
            .setConfig(RaftConfig.newBuilder()
                .setAppendEntriesRequestBatchSize(4096)
                .setCommitCountToTakeSnapshot(SNAPSHOT_ENTRIES)
                .setMaxPendingLogEntryCount(10_000)
                .build())
            .setModelFactory(new DefaultRaftModelFactory())
            .setExecutor(threads)
            .setTransport(wire)
            .setStore(store)
            .setStateMachine(counter)
            .build();
        wire.serve(node);
        node.start().join();
    }

    @Override
    public boolean leads() {
        return self.equals(node.getTerm().getLeaderEndpoint());
    }

    @Override
    public long term() {
        return node.getTerm().getTerm();
    }

    @Override
    public long applied() {
        return counter.applied;
    }

    @Override
    public void load(final int inFlight, final int bytes, final Clock clock) throws IOException, InterruptedException {
        final byte[] command = new byte[bytes];
        ClosedLoop.run(inFlight, clock, slot -> node.replicate(command).whenComplete((result, failure) -> {
            if (failure == null) {
                slot.completed();
            } else {
                slot.failed(failure);
            }
        }));
    }

    @Override
    public void close() throws IOException {
        node.terminate().join();
        wire.close();
        threads.close();
        store.close();
    }

    /** One thread for the node and one for its timers: the library's own executor puts each task through a heap of delays. */
    private static final class Threads implements RaftNodeExecutor, AutoCloseable {
        private final ExecutorService node = Executors.newSingleThreadExecutor(task -> new Thread(task, "raft"));
        private final ScheduledExecutorService timers =
            Executors.newSingleThreadScheduledExecutor(task -> new Thread(task, "timers"));

        @Override
        public void execute(final Runnable task) {
            node.execute(task);
        }

        @Override
        public void submit(final Runnable task) {
            node.execute(task);
        }

        @Override
        public void schedule(final Runnable task, final long delay, final TimeUnit unit) {
            timers.schedule(() -> node.execute(task), delay, unit);
        }

        @Override
        public void close() {
            timers.shutdownNow();
            node.shutdown();
        }
    }

    /** The state machine: it counts. */
    private static final class Counter implements StateMachine {
        private volatile long applied;

        @Override
        public Object runOperation(final long commitIndex, final Object operation) {
            if (((byte[]) operation).length > 0) {
                applied = applied + 1;
            }
            return null;
        }

        @Override
        public void takeSnapshot(final long commitIndex, final Consumer<Object> chunks) {
            chunks.accept(applied);
        }

        @Override
        public void installSnapshot(final long commitIndex, final List<Object> chunks) {
            applied = (Long) chunks.get(0);
        }

        @Override
        public Object getNewTermOperation() {
            return new byte[0];
        }
    }
}
