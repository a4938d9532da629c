//! Every queue and every size has a bound, and the bound has a name.

/// Largest body of one command, in bytes.
pub const ENTRY_BYTES_MAX: usize = 8 << 20;
/// Largest frame on the wire, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Submissions of one node that wait for their outcome, in number.
pub const IN_FLIGHT_MAX: usize = 65_536;
/// Submissions of one node that wait for their outcome, in bytes.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;
/// Commands that one Raft entry carries at most.
pub const BATCH_COMMANDS_MAX: usize = 4_096;
/// Bytes of commands that one Raft entry carries at most; a single larger command travels alone.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Raft entries proposed and not yet committed.
pub const PROPOSALS_IN_FLIGHT_MAX: usize = 4;
/// Commands handed to a hosted state machine and not yet acknowledged by it.
pub const APPLY_WINDOW_COMMANDS: usize = 8_192;
/// Bytes of commands handed to a hosted state machine and not yet acknowledged by it.
pub const APPLY_WINDOW_BYTES: usize = 32 << 20;
/// Events that wait for a poll; beyond it, events that can be dropped are, and the drop is itself an event.
pub const EVENTS_MAX: usize = 131_072;
/// Bytes of events that wait for a poll; beyond it, nothing is accepted that would be answered by another.
pub const EVENTS_BYTES_MAX: usize = 256 << 20;
/// Log lines that wait for a poll; older ones are dropped and counted.
pub const LOG_LINES_MAX: usize = 1_024;
/// Inbound connections of one node.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Largest frame before the handshake is done, in bytes.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 4 << 10;
/// Largest frame of a connection that is open to introductions only, in bytes.
pub const INTRODUCTION_FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes that one connection queues for sending before it stops taking more in; one frame may exceed it.
pub const SEND_QUEUE_BYTES: usize = 1 << 20;
/// Calls that one connection serves at a time; further ones wait in the socket.
pub const CALLS_SERVED_MAX: usize = 256;
/// Calls to one address that wait for their answer; further ones wait for their turn, within their timeout.
pub const CALLS_IN_FLIGHT_MAX: usize = 1_024;
/// Calls handed to a connection's task and not yet taken by it.
pub const CALLS_QUEUED_MAX: usize = 64;
/// Addresses that a node keeps a connection and statistics for.
pub const PEERS_MAX: usize = 1_024;
/// Append requests sent on one stream and not yet answered.
pub const APPENDS_IN_FLIGHT_MAX: usize = 256;
/// Bytes of entries in one append request on the wire; a single larger entry travels alone.
pub const APPEND_BYTES_MAX: usize = 16 << 20;
/// Bytes of recent log entries kept in memory for replication.
pub const LOG_CACHE_BYTES: usize = 64 << 20;
/// Operations that wait for the log's writer, in number; what they hold in bytes is bounded by what openraft has in flight.
pub const LOG_QUEUE_OPERATIONS: usize = 4_096;
/// Bytes of operations that go into one batch of the log; a single larger operation goes alone.
pub const LOG_BATCH_BYTES: usize = 16 << 20;
/// Reads of old log entries that wait for the log's reading thread.
pub const LOG_READS_MAX: usize = 64;
/// Bytes of log entries that one read returns; a single larger entry comes alone. Far below [`FRAME_BYTES_MAX`].
pub const LOG_READ_BYTES: usize = 4 << 20;
/// Bytes of one chunk of a snapshot on the wire and in the file.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Changes of the key-value store kept for watches that start at a revision, in number.
pub const WATCH_HISTORY_CHANGES: usize = 65_536;
/// Changes of the key-value store kept for watches that start at a revision, in bytes.
pub const WATCH_HISTORY_BYTES: usize = 64 << 20;
/// Watches registered on one node.
pub const WATCHES_MAX: usize = 4_096;
/// Longest node name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes logged since this node was started that it keeps behind a snapshot for followers that lag, however few entries they are;
/// a follower that lags more gets the snapshot.
pub const LOG_KEEP_BYTES_MAX: u64 = 1 << 30;
/// Former members whose commands are still told from repetitions of them, should the member come back.
pub const FORMER_MEMBERS_MAX: usize = 64;
/// Members of one cluster, learners included.
pub const MEMBERS_MAX: usize = 64;
/// Reads that wait for their barrier or for the reading thread.
pub const READS_MAX: usize = 65_536;
/// Longest key of the key-value store, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Entries that one scan of the key-value store answers; the rest is asked for with a cursor.
pub const SCAN_ENTRIES_MAX: usize = 4_096;
/// Bytes of keys and values after which one scan stops; a single larger entry is still answered, alone.
pub const SCAN_BYTES_MAX: usize = 1 << 20;
/// Counts by prefix that may run at a time on one node.
pub const COUNTS_MAX: usize = 4;
/// Bytes of former values kept for one running snapshot (or count) of the key-value store; beyond it that one fails.
pub const UNDO_BYTES_MAX: usize = 256 << 20;
/// Bytes of pages that sled keeps in its cache, as they are on disk; in memory they are two to three times as large.
pub const SLED_CACHE_BYTES: u64 = 64 << 20;
/// Databases that could not be closed after an error of the disk, and that a process keeps open; after that it must be restarted.
pub const KEPT_DATABASES_MAX: usize = 8;
/// A closed key-value store of more bytes on disk is not sealed: its records are read one by one when it is opened.
pub const SEALED_BYTES_MAX: u64 = 1 << 30;
/// Changed keys that the key-value store keeps in memory before they are written to sled together; as many more may be on their way
/// there. Beyond it applying waits.
pub const UNWRITTEN_KEYS_MAX: usize = 65_536;
/// Bytes of such changes, with what keeping them costs; one call may exceed it.
pub const UNWRITTEN_BYTES_MAX: usize = 16 << 20;
/// Batches of an installation that wait for sled's background writer before applying waits for it.
pub const UNFLUSHED_BATCHES_MAX: u64 = 256;
/// Damaged key-value directories that are kept for a person to look at; older ones are removed.
pub const SET_ASIDE_MAX: usize = 2;
/// Questions of this node's host to others that wait for their answer; and, of others to this host, as many again.
pub const ASKS_MAX: usize = 64;
/// Largest question of a host to another, in bytes.
pub const ASK_QUESTION_BYTES_MAX: usize = ENTRY_BYTES_MAX - 1024;
/// Largest answer to it, in bytes: what a frame holds beside its own fields.
pub const ASK_ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;
/// Leader events that wait for room among the events; beyond it the oldest are dropped, and the log says so.
pub const LEADER_EVENTS_MAX: usize = 1_024;
/// Past problems that a node's status shows.
pub const PROBLEMS_KEPT_MAX: usize = 16;
/// Largest datagram that a host's transport is given to carry, in bytes.
pub const CARRIED_DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Bytes that one connection over a host's transport holds each way: sent and not acknowledged, received and not read.
pub const CARRIED_WINDOW_BYTES: usize = 1 << 20;
/// Datagrams of one such connection on their way, or come too early, however small.
pub const CARRIED_SEGMENTS_MAX: usize = 1_024;
/// Connections over a host's transport, of both directions.
pub const CARRIED_CONNECTIONS_MAX: usize = 1_024;
/// Of these, opened by others and not yet served.
pub const CARRIED_BACKLOG: usize = 64;
/// Datagrams that wait for a host that polls events, in number; further ones are lost, which is healed.
pub const DATAGRAMS_MAX: usize = 4_096;
/// Datagrams that wait for a host that polls events, in bytes.
pub const DATAGRAMS_BYTES_MAX: usize = 16 << 20;
/// Largest file of certificates or of a key, in bytes.
pub const TLS_FILE_BYTES_MAX: usize = 1 << 20;
