package peers;

import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.ratis.RaftConfigKeys;
import org.apache.ratis.conf.RaftProperties;
import org.apache.ratis.grpc.GrpcConfigKeys;
import org.apache.ratis.netty.NettyConfigKeys;
import org.apache.ratis.protocol.ClientId;
import org.apache.ratis.protocol.Message;
import org.apache.ratis.protocol.RaftClientRequest;
import org.apache.ratis.protocol.RaftGroup;
import org.apache.ratis.protocol.RaftGroupId;
import org.apache.ratis.protocol.RaftPeer;
import org.apache.ratis.protocol.RaftPeerId;
import org.apache.ratis.rpc.SupportedRpcType;
import org.apache.ratis.server.RaftServer;
import org.apache.ratis.server.RaftServerConfigKeys;
import org.apache.ratis.statemachine.TransactionContext;
import org.apache.ratis.statemachine.impl.BaseStateMachine;
import org.apache.ratis.thirdparty.com.google.protobuf.ByteString;
import org.apache.ratis.util.SizeInBytes;
import org.apache.ratis.util.TimeDuration;

/** Apache Ratis: its segmented log, forced after each write of its log worker; requests are given to the server itself. */
final class RatisPeer implements Peer {
    private static final RaftGroupId GROUP = RaftGroupId.valueOf(new UUID(7, 7));
    private static final ClientId CLIENT = ClientId.randomId();
    /** Commands that wait on the leader, at most. */
    private static final int PENDING_MAX = 65_536;

    private final RaftServer server;
    private final RaftPeerId self;
    private final Counter counter = new Counter();
    private final AtomicLong calls = new AtomicLong();

    RatisPeer(final Options options) throws IOException {
        final List<RaftPeer> peers = new ArrayList<>();
        for (int i = 0; i < options.ports().size(); i++) {
            peers.add(RaftPeer.newBuilder().setId("n" + i).setAddress(options.address(i, 0)).build());
        }
        self = peers.get(options.index()).getId();
        server = RaftServer.newBuilder()
            .setServerId(self)
            .setGroup(RaftGroup.valueOf(GROUP, peers))
            .setStateMachine(counter)
            .setProperties(properties(options))
            .build();
        server.start();
    }

    private static RaftProperties properties(final Options options) {
        final RaftProperties properties = new RaftProperties();
        final int port = options.ports().get(options.index()).get(0);
        final boolean grpc = Options.setting("RATIS_RPC", "netty").equals("grpc");
        RaftConfigKeys.Rpc.setType(properties, grpc ? SupportedRpcType.GRPC : SupportedRpcType.NETTY);
        GrpcConfigKeys.Server.setPort(properties, port);
        NettyConfigKeys.Server.setPort(properties, port);
        RaftServerConfigKeys.setStorageDir(properties, List.of(new File(options.dir().toFile(), "ratis")));
        RaftServerConfigKeys.Rpc.setTimeoutMin(properties, TimeDuration.valueOf(2, TimeUnit.SECONDS));
        RaftServerConfigKeys.Rpc.setTimeoutMax(properties, TimeDuration.valueOf(3, TimeUnit.SECONDS));
        // No entry in the log for each move of the commit index, no sync for it.
        RaftServerConfigKeys.Log.setLogMetadataEnabled(properties, false);
        RaftServerConfigKeys.Log.setSegmentSizeMax(properties, SizeInBytes.valueOf("64MB"));
        RaftServerConfigKeys.Log.setPreallocatedSize(properties, SizeInBytes.valueOf("64MB"));
        RaftServerConfigKeys.Log.setWriteBufferSize(properties, SizeInBytes.valueOf("16MB"));
        RaftServerConfigKeys.Log.setForceSyncNum(properties, 1024);
        RaftServerConfigKeys.Log.setQueueElementLimit(properties, PENDING_MAX);
        RaftServerConfigKeys.Log.Appender.setBufferByteLimit(properties, SizeInBytes.valueOf("4MB"));
        RaftServerConfigKeys.Log.Appender.setBufferElementLimit(properties, 4096);
        RaftServerConfigKeys.Write.setElementLimit(properties, PENDING_MAX);
        RaftServerConfigKeys.Snapshot.setAutoTriggerEnabled(properties, false);
        return properties;
    }

    @Override
    public boolean leads() {
        return counter.leads();
    }

    @Override
    public long term() {
        return counter.term();
    }

    @Override
    public long applied() {
        return counter.applied;
    }

    @Override
    public void load(final int inFlight, final int bytes, final Clock clock) throws IOException, InterruptedException {
        final Message command = Message.valueOf(ByteString.copyFrom(new byte[bytes]));
        ClosedLoop.run(inFlight, clock, slot -> submit(command, slot));
    }

    private void submit(final Message command, final ClosedLoop.Slot slot) {
        final RaftClientRequest request = RaftClientRequest.newBuilder()
            .setClientId(CLIENT)
            .setServerId(self)
            .setGroupId(GROUP)
            .setCallId(calls.incrementAndGet())
            .setMessage(command)
            .setType(RaftClientRequest.writeRequestType())
            .build();
        try {
            server.submitClientRequestAsync(request).whenComplete((reply, failure) -> {
                if (failure == null && reply.isSuccess()) {
                    slot.completed();
                } else {
                    slot.failed(failure != null ? failure : reply.getException());
                }
            });
        } catch (final IOException failure) {
            slot.failed(failure);
        }
    }

    @Override
    public void close() throws IOException {
        server.close();
    }

    /** The state machine: it counts. */
    private final class Counter extends BaseStateMachine {
        private volatile long applied;

        private boolean leads() {
            try {
                return server.getDivision(GROUP).getInfo().isLeaderReady();
            } catch (final IOException notYet) {
                return false;
            }
        }

        private long term() {
            try {
                return server.getDivision(GROUP).getInfo().getCurrentTerm();
            } catch (final IOException notYet) {
                return -1;
            }
        }

        @Override
        public CompletableFuture<Message> applyTransaction(final TransactionContext transaction) {
            updateLastAppliedTermIndex(transaction.getLogEntry().getTerm(), transaction.getLogEntry().getIndex());
            applied = applied + 1;
            return CompletableFuture.completedFuture(Message.EMPTY);
        }
    }
}
