package peers;

import io.aeron.archive.Archive;
import io.aeron.archive.ArchiveThreadingMode;
import io.aeron.cluster.ClusteredMediaDriver;
import io.aeron.cluster.ConsensusModule;
import io.aeron.cluster.service.ClusteredServiceContainer;
import io.aeron.driver.MaxMulticastFlowControlSupplier;
import io.aeron.driver.MediaDriver;
import io.aeron.driver.ThreadingMode;
import java.io.IOException;
import java.util.StringJoiner;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;
import org.agrona.CloseHelper;
import org.agrona.concurrent.BackoffIdleStrategy;
import org.agrona.concurrent.IdleStrategy;

/**
 * Aeron Cluster: media driver, archive, consensus module, service and client in one process. The archive forces file and
 * metadata before it reports a position (file sync level 2), and the consensus module counts only reported positions.
 */
final class AeronPeer implements Peer {
    /** Fragments and messages on the wire, in bytes: many commands a datagram. */
    private static final int MTU = 8 * 1024;
    /** How far a sender may run ahead of a receiver, in bytes; the sockets' buffers must hold as much. */
    private static final int WINDOW = 2 * 1024 * 1024;
    private static final int SOCKET_BUFFER = 4 * 1024 * 1024;
    /** What the archive writes, and forces, at once, in bytes at most. */
    private static final int BLOCK = 1024 * 1024;
    /** Of the log's buffers, and of the archive's files. */
    private static final String TERM_LENGTH = Options.setting("AERON_TERM", String.valueOf(16 * 1024 * 1024));
    private static final String SEGMENT_LENGTH = Options.setting("AERON_SEGMENT", String.valueOf(16 * 1024 * 1024));
    /** 2: force data and metadata. Its default, 0, forces nothing. */
    private static final int SYNC = Integer.parseInt(Options.setting("AERON_SYNC", "2"));
    private static final boolean SHARED = Options.setting("AERON_DRIVER", "shared").equals("shared");
    private static final boolean ARCHIVE_SHARED = Options.setting("AERON_ARCHIVE", "shared").equals("shared");
    /** Spins, yields, shortest and longest park in nanoseconds of every thread that waits. */
    private static final String IDLE = Options.setting("AERON_IDLE", "10,20,1000,100000");

    private final String aeronDir;
    private final AeronService service = new AeronService();
    private final ClusteredMediaDriver driver;
    private final ClusteredServiceContainer container;

    AeronPeer(final Options options) {
        aeronDir = options.fast().resolve("driver").toString();
        final String clusterDir = options.dir().resolve("cluster").toString();
        driver = ClusteredMediaDriver.launch(driver(aeronDir), archive(options, aeronDir),
            consensus(options, aeronDir, clusterDir));
        final ClusteredServiceContainer.Context context = new ClusteredServiceContainer.Context()
            .aeronDirectoryName(aeronDir)
            .clusterDirectoryName(clusterDir)
            .idleStrategySupplier(idle())
            .clusteredService(service);
        container = ClusteredServiceContainer.launch(context);
    }

    /** How every thread waits: it must leave the two cores to the others. */
    static Supplier<IdleStrategy> idle() {
        final String[] numbers = IDLE.split(",");
        return () -> new BackoffIdleStrategy(Long.parseLong(numbers[0]), Long.parseLong(numbers[1]),
            Long.parseLong(numbers[2]), Long.parseLong(numbers[3]));
    }

    private static MediaDriver.Context driver(final String aeronDir) {
        return new MediaDriver.Context()
            .aeronDirectoryName(aeronDir)
            .dirDeleteOnStart(true)
            .dirDeleteOnShutdown(true)
            .threadingMode(SHARED ? ThreadingMode.SHARED : ThreadingMode.DEDICATED)
            .sharedIdleStrategy(idle().get())
            .conductorIdleStrategy(idle().get())
            .senderIdleStrategy(idle().get())
            .receiverIdleStrategy(idle().get())
            .mtuLength(MTU)
            .ipcMtuLength(MTU)
            .initialWindowLength(WINDOW)
            .socketRcvbufLength(SOCKET_BUFFER)
            .socketSndbufLength(SOCKET_BUFFER)
            .multicastFlowControlSupplier(new MaxMulticastFlowControlSupplier())
            .termBufferSparseFile(true);
    }

    private static Archive.Context archive(final Options options, final String aeronDir) {
        return new Archive.Context()
            .aeronDirectoryName(aeronDir)
            .archiveDir(options.dir().resolve("archive").toFile())
            .controlChannel("aeron:udp?endpoint=" + options.address(options.index(), 4))
            .replicationChannel("aeron:udp?endpoint=127.0.0.1:0")
            .recordingEventsEnabled(false)
            .threadingMode(ARCHIVE_SHARED ? ArchiveThreadingMode.SHARED : ArchiveThreadingMode.DEDICATED)
            .idleStrategySupplier(idle())
            .recorderIdleStrategySupplier(idle())
            .replayerIdleStrategySupplier(idle())
            .segmentFileLength(Integer.parseInt(SEGMENT_LENGTH))
            .fileIoMaxLength(BLOCK)
            .fileSyncLevel(SYNC)
            .catalogFileSyncLevel(SYNC);
    }

    private static ConsensusModule.Context consensus(final Options options, final String aeronDir, final String clusterDir) {
        return new ConsensusModule.Context()
            .aeronDirectoryName(aeronDir)
            .clusterDirectoryName(clusterDir)
            .clusterMemberId(options.index())
            .clusterMembers(members(options))
            .ingressChannel("aeron:udp?term-length=" + TERM_LENGTH)
            .isIpcIngressAllowed(true)
            .ingressFragmentLimit(500)
            .logChannel("aeron:udp?term-length=" + TERM_LENGTH)
            .replicationChannel("aeron:udp?endpoint=127.0.0.1:0")
            .startupCanvassTimeoutNs(TimeUnit.SECONDS.toNanos(20))
            .fileSyncLevel(SYNC)
            .idleStrategySupplier(idle());
    }

    /** Of each member: its number, then where it takes ingress, consensus, log, catch-up and archive requests. */
    private static String members(final Options options) {
        final StringJoiner members = new StringJoiner("|");
        for (int node = 0; node < options.ports().size(); node++) {
            final StringJoiner member = new StringJoiner(",").add(String.valueOf(node));
            for (int port = 0; port < 5; port++) {
                member.add(options.address(node, port));
            }
            members.add(member.toString());
        }
        return members.toString();
    }

    @Override
    public boolean leads() {
        return service.leads();
    }

    @Override
    public long term() {
        return service.term();
    }

    @Override
    public long applied() {
        return service.applied();
    }

    @Override
    public void load(final int inFlight, final int bytes, final Clock clock) throws IOException {
        try (AeronLoad load = new AeronLoad(aeronDir, service, bytes, clock)) {
            load.run(inFlight);
        }
    }

    @Override
    public void close() {
        CloseHelper.closeAll(container, driver);
    }
}
