package peers;

import io.microraft.model.log.LogEntry;
import io.microraft.model.log.RaftGroupMembersView;
import io.microraft.model.log.SnapshotChunk;
import io.microraft.model.persistence.RaftEndpointPersistentState;
import io.microraft.model.persistence.RaftTermPersistentState;
import io.microraft.persistence.RaftStore;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;

/**
 * What MicroRaft keeps on disk, forced at each flush. As fast as it can be: two files, filled with zeros beforehand so that
 * a force writes data only, in turn; what a snapshot covers is overwritten. Reading it back is not written: no restart.
 */
final class MicroRaftStore implements RaftStore, AutoCloseable {
    private static final int FILE_BYTES = 64 * 1024 * 1024;
    private static final int BUFFER_BYTES = 8 * 1024 * 1024;
    private static final byte ENTRY = 1;
    private static final byte TERM = 2;
    private static final byte MEMBERS = 3;
    private static final byte ENDPOINT = 4;
    private static final byte CHUNK = 5;
    private static final byte TRUNCATED = 6;

    /** Only a test of the harness says no. */
    private static final boolean FORCE = Options.setting("MICRORAFT_FORCE", "yes").equals("yes");

    private final FileChannel[] files = new FileChannel[2];
    /** The last index in each file. */
    private final long[] last = new long[2];
    private final ByteBuffer buffer = ByteBuffer.allocateDirect(BUFFER_BYTES);
    private int current;
    private long position;
    /** No entry up to here is needed any more. */
    private long covered;

    MicroRaftStore(final Path dir) throws IOException {
        final ByteBuffer zeros = ByteBuffer.allocateDirect(1024 * 1024);
        for (int file = 0; file < files.length; file++) {
            files[file] = FileChannel.open(dir.resolve("log-" + file), StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
            for (int at = 0; at < FILE_BYTES; at += zeros.capacity()) {
                files[file].write(zeros.clear(), at);
            }
            files[file].force(true);
        }
    }

    @Override
    public void persistLogEntries(final List<LogEntry> entries) throws IOException {
        for (final LogEntry entry : entries) {
            final byte[] command = (byte[]) entry.getOperation();
            put(ENTRY, 16 + command.length);
            buffer.putLong(entry.getIndex()).putInt(entry.getTerm()).putInt(command.length).put(command);
            last[current] = entry.getIndex();
        }
    }

    @Override
    public void persistSnapshotChunk(final SnapshotChunk chunk) throws IOException {
        put(CHUNK, 24);
        buffer.putLong(chunk.getIndex()).putInt(chunk.getTerm()).putInt(chunk.getSnapshotChunkIndex());
        buffer.putLong((Long) chunk.getOperation());
    }

    @Override
    public void persistAndFlushTerm(final RaftTermPersistentState term) throws IOException {
        put(TERM, 8);
        buffer.putInt(term.getTerm()).putInt(term.getVotedFor() == null ? -1 : (Integer) term.getVotedFor().getId());
        flush();
    }

    @Override
    public void persistAndFlushInitialGroupMembers(final RaftGroupMembersView members) throws IOException {
        put(MEMBERS, 4);
        buffer.putInt(members.getMembers().size());
        flush();
    }

    @Override
    public void persistAndFlushLocalEndpoint(final RaftEndpointPersistentState endpoint) throws IOException {
        put(ENDPOINT, 4);
        buffer.putInt((Integer) endpoint.getLocalEndpoint().getId());
        flush();
    }

    @Override
    public void truncateLogEntriesFrom(final long index) throws IOException {
        put(TRUNCATED, 8);
        buffer.putLong(index);
    }

    @Override
    public void truncateLogEntriesUntil(final long index) {
        covered = Math.max(covered, index);
    }

    @Override
    public void deleteSnapshotChunks(final long index, final int count) {
        // They are overwritten with the file that they are in.
    }

    @Override
    public void flush() throws IOException {
        write();
        if (FORCE) {
            files[current].force(false);
        }
    }

    /** Begins a record of so many bytes: writes what waits when the buffer is full, turns to the other file at the end. */
    private void put(final byte type, final int length) throws IOException {
        if (buffer.remaining() < length + 5) {
            write();
        }
        if (position + buffer.position() + length + 5 > FILE_BYTES) {
            flush();
            current = 1 - current;
            position = 0;
            if (last[current] > covered) {
                throw new IOException("Entry " + last[current] + " is still needed; no snapshot beyond " + covered + ".");
            }
        }
        buffer.putInt(length).put(type);
    }

    private void write() throws IOException {
        buffer.flip();
        while (buffer.hasRemaining()) {
            position += files[current].write(buffer, position);
        }
        buffer.clear();
    }

    @Override
    public void close() throws IOException {
        for (final FileChannel file : files) {
            file.close();
        }
    }
}
