package peers;

import io.microraft.RaftEndpoint;
import io.microraft.model.RaftModelFactory;
import io.microraft.model.impl.DefaultRaftModelFactory;
import io.microraft.model.log.LogEntry;
import io.microraft.model.message.AppendEntriesFailureResponse;
import io.microraft.model.message.AppendEntriesRequest;
import io.microraft.model.message.AppendEntriesSuccessResponse;
import io.microraft.model.message.PreVoteRequest;
import io.microraft.model.message.PreVoteResponse;
import io.microraft.model.message.RaftMessage;
import io.microraft.model.message.VoteRequest;
import io.microraft.model.message.VoteResponse;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** Messages as bytes: type, sender, term, then their fields. Those that a run does not need (snapshots to a follower that
 * fell behind, a handover) are refused aloud. */
final class MicroRaftCodec {
    private static final String GROUP = "peers";

    private final RaftModelFactory make = new DefaultRaftModelFactory();
    private final List<RaftEndpoint> members;

    MicroRaftCodec(final List<RaftEndpoint> members) {
        this.members = members;
    }

    void write(final RaftMessage message, final ByteBuffer out) {
        if (message instanceof AppendEntriesRequest request) {
            head(1, message, out);
            append(request, out);
        } else if (message instanceof AppendEntriesSuccessResponse response) {
            head(2, message, out).putLong(response.getLastLogIndex()).putLong(response.getQuerySequenceNumber())
                .putLong(response.getFlowControlSequenceNumber());
        } else if (message instanceof AppendEntriesFailureResponse response) {
            head(3, message, out).putLong(response.getExpectedNextIndex()).putLong(response.getQuerySequenceNumber())
                .putLong(response.getFlowControlSequenceNumber());
        } else if (message instanceof PreVoteRequest request) {
            head(4, message, out).putInt(request.getLastLogTerm()).putLong(request.getLastLogIndex());
        } else if (message instanceof PreVoteResponse response) {
            head(5, message, out).put((byte) (response.isGranted() ? 1 : 0));
        } else if (message instanceof VoteRequest request) {
            head(6, message, out).putInt(request.getLastLogTerm()).putLong(request.getLastLogIndex())
                .put((byte) (request.isSticky() ? 1 : 0));
        } else if (message instanceof VoteResponse response) {
            head(7, message, out).put((byte) (response.isGranted() ? 1 : 0));
        } else {
            throw new IllegalStateException("This codec has no " + message.getClass().getSimpleName() + ".");
        }
    }

    RaftMessage read(final ByteBuffer in) {
        final byte type = in.get();
        final RaftEndpoint sender = members.get(in.getInt());
        final int term = in.getInt();
        return switch (type) {
            case 1 -> append(sender, term, in);
            case 2 -> make.createAppendEntriesSuccessResponseBuilder().setGroupId(GROUP).setSender(sender).setTerm(term)
                .setLastLogIndex(in.getLong()).setQuerySequenceNumber(in.getLong())
                .setFlowControlSequenceNumber(in.getLong()).build();
            case 3 -> make.createAppendEntriesFailureResponseBuilder().setGroupId(GROUP).setSender(sender).setTerm(term)
                .setExpectedNextIndex(in.getLong()).setQuerySequenceNumber(in.getLong())
                .setFlowControlSequenceNumber(in.getLong()).build();
            case 4 -> make.createPreVoteRequestBuilder().setGroupId(GROUP).setSender(sender).setTerm(term)
                .setLastLogTerm(in.getInt()).setLastLogIndex(in.getLong()).build();
            case 5 -> make.createPreVoteResponseBuilder().setGroupId(GROUP).setSender(sender).setTerm(term)
                .setGranted(in.get() == 1).build();
            case 6 -> make.createVoteRequestBuilder().setGroupId(GROUP).setSender(sender).setTerm(term)
                .setLastLogTerm(in.getInt()).setLastLogIndex(in.getLong()).setSticky(in.get() == 1).build();
            case 7 -> make.createVoteResponseBuilder().setGroupId(GROUP).setSender(sender).setTerm(term)
                .setGranted(in.get() == 1).build();
            default -> throw new IllegalStateException("There is no message of type " + type + ".");
        };
    }

    private static ByteBuffer head(final int type, final RaftMessage message, final ByteBuffer out) {
        return out.put((byte) type).putInt((Integer) message.getSender().getId()).putInt(message.getTerm());
    }

    private static void append(final AppendEntriesRequest request, final ByteBuffer out) {
        final List<LogEntry> entries = request.getLogEntries();
        out.putInt(request.getPreviousLogTerm()).putLong(request.getPreviousLogIndex()).putLong(request.getCommitIndex())
            .putLong(request.getQuerySequenceNumber()).putLong(request.getFlowControlSequenceNumber())
            .putInt(entries.size());
        for (final LogEntry entry : entries) {
            final byte[] command = (byte[]) entry.getOperation();
            out.putLong(entry.getIndex()).putInt(entry.getTerm()).putInt(command.length).put(command);
        }
    }

    private RaftMessage append(final RaftEndpoint sender, final int term, final ByteBuffer in) {
        final AppendEntriesRequest.AppendEntriesRequestBuilder request = make.createAppendEntriesRequestBuilder()
            .setGroupId(GROUP).setSender(sender).setTerm(term)
            .setPreviousLogTerm(in.getInt()).setPreviousLogIndex(in.getLong()).setCommitIndex(in.getLong())
            .setQuerySequenceNumber(in.getLong()).setFlowControlSequenceNumber(in.getLong());
        final int count = in.getInt();
        final List<LogEntry> entries = new ArrayList<>(count);
        for (int i = 0; i < count; i++) {
            final LogEntry.LogEntryBuilder entry =
                make.createLogEntryBuilder().setIndex(in.getLong()).setTerm(in.getInt());
            final byte[] command = new byte[in.getInt()];
            in.get(command);
            entries.add(entry.setOperation(command).build());
        }
        return request.setLogEntries(entries).build();
    }
}
