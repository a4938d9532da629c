package quorate.jni;

/**
 * What went wrong, as a stable number: the codes of the Rust engine, one to one. A completion record's status is 0 or
 * one of these numbers; a {@link QuorateException} carries one.
 */
public enum Code {
    /** The node was closed, or is closing. */
    CLOSED(1),
    /** An argument or a configuration value is wrong. */
    INVALID(2),
    /** A bounded queue is full; nothing was accepted. */
    OVERLOADED(3),
    /** The entry is larger than what is accepted. */
    TOO_LARGE(4),
    /** The outcome did not arrive in time. The command may still commit. */
    TIMEOUT(5),
    /** This node does not lead, and was asked not to forward. */
    NOT_LEADER(6),
    /** No quorum, or no leader, within the time given: nothing was done. */
    UNAVAILABLE(7),
    /** The state machine failed on this command. */
    STATE_MACHINE(8),
    /** Reading or writing the disk failed. */
    IO(9),
    /** Data on disk is damaged: the message names file, offset and the way out. */
    CORRUPT(10),
    /** The other side belongs to another cluster, speaks another version, or is not who it should be. */
    REFUSED(11),
    /** The data directory is in use by another process. */
    LOCKED(12),
    /** The address is already in use. */
    ADDRESS_IN_USE(13),
    /** A membership change is impossible: the message says why. */
    MEMBERSHIP(14),
    /** What was asked for is no longer kept (a revision before the oldest, a purged index). */
    COMPACTED(15),
    /** A defect in Quorate: a panic was caught, an invariant did not hold. */
    INTERNAL(16);

    private final int number;

    Code(int number) {
        this.number = number;
    }

    /**
     * The number that stands for this code in records and exceptions.
     *
     * @return the number, from 1 on
     */
    public int number() {
        return number;
    }

    /**
     * The code with a number.
     *
     * @param number a status or an exception's code
     * @return the code; {@link #INTERNAL} for a number that stands for none
     */
    public static Code of(int number) {
        for (Code code : values()) {
            if (code.number == number) {
                return code;
            }
        }
        return INTERNAL;
    }
}
