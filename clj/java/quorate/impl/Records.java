package quorate.impl;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/**
 * The records that one poll brought, {@code length u32 · type u8 · fields}, read one after the other. They are copied out of the
 * direct buffer at once, so that nothing is made or copied for each of them.
 */
public final class Records {
    private static final VarHandle LONG = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);
    private static final VarHandle INT = MethodHandles.byteArrayViewVarHandle(int[].class, ByteOrder.LITTLE_ENDIAN);
    private static final int LENGTH_BYTES = 4;

    private byte[] bytes = new byte[0];
    private final Span body = new Span(bytes, 0, 0);
    /** Where the fields of the present record begin. */
    private int fields;
    /** Behind the present record. */
    private int end;
    /** Behind the last one. */
    private int limit;

    /** Takes the first {@code n} bytes of {@code direct} in place of what was there; {@link #next} goes to the first record. */
    public void take(ByteBuffer direct, int n) {
        if (bytes.length < n) {
            bytes = new byte[n];
        }
        direct.position(0).limit(n).get(bytes, 0, n);
        end = 0;
        limit = n;
    }

    /** Goes to the next record; false when there is none. */
    public boolean next() {
        if (end >= limit) {
            return false;
        }
        fields = end + LENGTH_BYTES + 1;
        end += LENGTH_BYTES + (int) INT.get(bytes, end);
        return true;
    }

    /** The type of the present record. */
    public int type() {
        return bytes[fields - 1];
    }

    /** The number of eight bytes that is {@code at} bytes behind the type. */
    public long u64(int at) {
        return (long) LONG.get(bytes, fields + at);
    }

    /** The byte that is {@code at} bytes behind the type. */
    public int u8(int at) {
        return bytes[fields + at] & 0xff;
    }

    /** What is {@code at} bytes behind the type and further, until the next call of this or of {@link #take}. */
    public Span rest(int at) {
        body.move(bytes, fields + at, end);
        return body;
    }

    /** The same as UTF-8. */
    public String text(int at) {
        return new String(bytes, fields + at, end - fields - at, StandardCharsets.UTF_8);
    }
}
