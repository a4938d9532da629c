package quorate.impl;

import clojure.lang.Keyword;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * EDN text while it is written, as UTF-8 from the start: in an array that grows, or, when there is a stream, in one that is
 * emptied into it. For one thread.
 */
public final class TextSink {
    /** Keywords whose text is remembered. */
    private static final int KNOWN = 1024;
    /** Texts longer than this are not remembered, in bytes. */
    private static final int KNOWN_BYTES_MAX = 64;

    /** A keyword and its text. Never changes once it is seen, so that threads may share the table without a lock. */
    private static final class Known {
        final Keyword keyword;
        final byte[] text;

        Known(Keyword keyword, byte[] text) {
            this.keyword = keyword;
            this.text = text;
        }
    }

    private static final Known[] KEYWORDS = new Known[KNOWN];

    private byte[] bytes;
    private int length;

    /** An empty one, with room for so many bytes at first. */
    public TextSink(int capacity) {
        bytes = new byte[capacity];
    }

    /** Bytes that it holds. */
    public int length() {
        return length;
    }

    /** A copy of what it holds. */
    public byte[] toBytes() {
        return Arrays.copyOf(bytes, length);
    }

    /** Hands what it holds to {@code out}, and is empty. */
    public void spill(OutputStream out) throws IOException {
        out.write(bytes, 0, length);
        length = 0;
    }

    private void room(int more) {
        if (bytes.length - length < more) {
            bytes = Arrays.copyOf(bytes, Math.max(Math.addExact(length, more), Math.min(2 * bytes.length, 1 << 30)));
        }
    }

    /** Appends one byte as it is. */
    public TextSink raw(int b) {
        room(1);
        bytes[length++] = (byte) b;
        return this;
    }

    /** Appends a char that is no surrogate. */
    public TextSink append(char c) {
        room(3);
        put(c);
        return this;
    }

    /** Appends a text; half a surrogate pair becomes a question mark. */
    public TextSink append(String text) {
        int n = text.length();
        room(n);
        for (int i = 0; i < n; i++) {
            char c = text.charAt(i);
            if (c >= 0x80) {
                return wide(text, i);
            }
            bytes[length++] = (byte) c;
        }
        return this;
    }

    private TextSink wide(String text, int from) {
        return append(text.substring(from).getBytes(StandardCharsets.UTF_8));
    }

    private TextSink append(byte[] text) {
        room(text.length);
        System.arraycopy(text, 0, bytes, length, text.length);
        length += text.length;
        return this;
    }

    /** Appends a number in decimal. */
    public TextSink append(long n) {
        if (n == Long.MIN_VALUE) {
            return append(Long.toString(n));
        }
        room(20);
        if (n < 0) {
            bytes[length++] = '-';
            n = -n;
        }
        int digits = 1;
        for (long rest = n; rest >= 10; rest /= 10) {
            digits++;
        }
        for (int at = length + digits - 1; at >= length; at--) {
            bytes[at] = (byte) ('0' + n % 10);
            n /= 10;
        }
        length += digits;
        return this;
    }

    /** Appends a number as Java writes it. */
    public TextSink append(double d) {
        return append(Double.toString(d));
    }

    /**
     * Appends a text in quotes. Only quotes, backslashes and halves of surrogate pairs, which UTF-8 cannot carry, need
     * escaping.
     */
    public TextSink quoted(String text) {
        int n = text.length();
        room(n + 2);
        bytes[length++] = '"';
        for (int i = 0; i < n; i++) {
            char c = text.charAt(i);
            if (c < 0x80 && c != '"' && c != '\\') {
                if (length == bytes.length) {
                    room(n - i + 1);
                }
                bytes[length++] = (byte) c;
            } else if (c == '"' || c == '\\') {
                room(2);
                bytes[length++] = '\\';
                bytes[length++] = (byte) c;
            } else if (!Character.isSurrogate(c)) {
                room(3);
                put(c);
            } else if (Character.isHighSurrogate(c) && i + 1 < n && Character.isLowSurrogate(text.charAt(i + 1))) {
                pair(Character.toCodePoint(c, text.charAt(++i)));
            } else {
                append(String.format("\\u%04x", (int) c));
            }
        }
        return raw('"');
    }

    private void put(char c) {
        if (c < 0x80) {
            bytes[length++] = (byte) c;
        } else if (c < 0x800) {
            bytes[length++] = (byte) (0xc0 | c >> 6);
            bytes[length++] = (byte) (0x80 | c & 0x3f);
        } else {
            bytes[length++] = (byte) (0xe0 | c >> 12);
            bytes[length++] = (byte) (0x80 | c >> 6 & 0x3f);
            bytes[length++] = (byte) (0x80 | c & 0x3f);
        }
    }

    private void pair(int point) {
        room(4);
        bytes[length++] = (byte) (0xf0 | point >> 18);
        bytes[length++] = (byte) (0x80 | point >> 12 & 0x3f);
        bytes[length++] = (byte) (0x80 | point >> 6 & 0x3f);
        bytes[length++] = (byte) (0x80 | point & 0x3f);
    }

    /** Appends {@code keyword} when {@link #remember} was called for it; false when it must be looked at. */
    public boolean appendKnown(Keyword keyword) {
        Known known = KEYWORDS[keyword.hasheq() & (KNOWN - 1)];
        if (known == null || known.keyword != keyword) {
            return false;
        }
        append(known.text);
        return true;
    }

    /** Appends {@code keyword}, which was found readable, and remembers that. */
    public TextSink remember(Keyword keyword) {
        byte[] text = keyword.toString().getBytes(StandardCharsets.UTF_8);
        if (text.length <= KNOWN_BYTES_MAX) {
            KEYWORDS[keyword.hasheq() & (KNOWN - 1)] = new Known(keyword, text);
        }
        return append(text);
    }
}
