package quorate.impl;

/**
 * The bytes of an array from one place up to another. That of an entry which is being applied lies in the bytes of a whole poll and
 * is used again for the next one: what looks at it must do so before it returns.
 */
public final class Span {
    private byte[] bytes;
    private int from;
    private int to;

    /** The bytes from {@code from} up to {@code to}. */
    public Span(byte[] bytes, int from, int to) {
        move(bytes, from, to);
    }

    void move(byte[] newBytes, int newFrom, int newTo) {
        bytes = newBytes;
        from = newFrom;
        to = newTo;
    }

    /** The array that they lie in. */
    public byte[] bytes() {
        return bytes;
    }

    /** Where they begin. */
    public int from() {
        return from;
    }

    /** Behind the last. */
    public int to() {
        return to;
    }
}
