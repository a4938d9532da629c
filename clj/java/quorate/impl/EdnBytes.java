package quorate.impl;

import clojure.lang.IFn;
import clojure.lang.Keyword;
import clojure.lang.LazilyPersistentVector;
import clojure.lang.PersistentHashSet;
import clojure.lang.PersistentList;
import clojure.lang.RT;
import clojure.lang.Symbol;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Reads EDN straight from bytes in UTF-8, as far as it is sure to read what {@code clojure.edn} reads: nil, booleans,
 * whole numbers that fit a long, floating-point numbers, strings, ordinary keywords and symbols, single letters and digits as
 * chars, lists, vectors, maps, sets and tagged values. For all else, and for whatever is wrong, {@link #read} returns
 * {@link #NOT_HERE}, and the caller has {@code clojure.edn} read the same bytes from their start; so there is one reader
 * that decides what is an error, and says so.
 */
public final class EdnBytes {
    /** What {@link #read} returns when {@code clojure.edn} must read it. */
    public static final Object NOT_HERE = new Object();

    /** Collections nested deeper than this are left to {@code clojure.edn}: a stack is finite. */
    private static final int DEPTH_MAX = 256;
    /** Digits that a long has room for, whatever they are. */
    private static final int DIGITS_MAX = 18;
    /** Digits up to which a quotient of two doubles is exact and so rounds right. */
    private static final int EXACT_DIGITS = 15;
    /** Keywords and symbols that are remembered by their text. */
    private static final int KNOWN = 1024;
    /** Texts longer than this are not remembered, in bytes. */
    private static final int KNOWN_BYTES_MAX = 64;

    private static final double[] POWERS_OF_TEN = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15
    };

    private static final byte SPACE = 1;
    private static final byte CLOSING = 2;
    private static final byte FIRST = 4;
    private static final byte LATER = 8;
    private static final byte DIGIT = 16;
    private static final byte LETTER = 32;
    private static final byte OPENING = 64;
    /** What an ASCII character can be. */
    private static final byte[] KIND = new byte[128];

    static {
        for (int c : new int[] {'\t', '\n', 0x0b, '\f', '\r', 0x1c, 0x1d, 0x1e, 0x1f, ' ', ','}) {
            KIND[c] = SPACE;
        }
        for (char c : ")]}".toCharArray()) {
            KIND[c] = CLOSING;
        }
        for (char c : "([{\"".toCharArray()) {
            KIND[c] = OPENING;
        }
        for (char c : "*!_?$%&=<>".toCharArray()) {
            KIND[c] = FIRST | LATER;
        }
        for (char c : "+-.'#".toCharArray()) {
            KIND[c] = LATER;
        }
        for (int i = 0; i < 26; i++) {
            KIND['a' + i] = KIND['A' + i] = FIRST | LATER | LETTER;
        }
        for (char c = '0'; c <= '9'; c++) {
            KIND[c] = LATER | DIGIT;
        }
    }

    /** A token and its text. Never changes once it is seen, so that threads may share the table without a lock. */
    private static final class Known {
        final byte[] text;
        final Object token;

        Known(byte[] text, Object token) {
            this.text = text;
            this.token = token;
        }
    }

    private static final Known[] TOKENS = new Known[KNOWN];

    /** Thrown, without a stack, where this reader's knowledge ends. */
    private static final class Elsewhere extends RuntimeException {
        private static final long serialVersionUID = 1L;
        static final Elsewhere INSTANCE = new Elsewhere();

        private Elsewhere() {
            super(null, null, false, false);
        }
    }

    private final byte[] bytes;
    private final int end;
    private final IFn tagged;
    private int next;
    private Object[] stack = new Object[32];
    private int held;

    private EdnBytes(byte[] bytes, int from, int to, IFn tagged) {
        this.bytes = bytes;
        this.next = from;
        this.end = to;
        this.tagged = tagged;
    }

    /**
     * The one value in {@code bytes} between {@code from} and {@code to}, or {@link #NOT_HERE}. {@code tagged} is called
     * with a tag, a symbol, and the form behind it, and returns the value.
     */
    public static Object read(byte[] bytes, int from, int to, IFn tagged) {
        try {
            EdnBytes reader = new EdnBytes(bytes, from, to, tagged);
            Object value = reader.value(0);
            reader.skipSpace();
            return reader.next == to ? value : NOT_HERE;
        } catch (Exception | AssertionError e) {
            // What is wrong with it, clojure.edn says.
            return NOT_HERE;
        }
    }

    private void skipSpace() {
        while (next < end && bytes[next] >= 0 && KIND[bytes[next]] == SPACE) {
            next++;
        }
    }

    private Object value(int depth) {
        skipSpace();
        if (next == end || depth > DEPTH_MAX) {
            throw Elsewhere.INSTANCE;
        }
        byte c = bytes[next];
        switch (c) {
            case '"':
                return string();
            case ':':
                return token();
            case '[':
                return LazilyPersistentVector.createOwning(elements(']', depth));
            case '{':
                return map(depth);
            case '(':
                Object[] items = elements(')', depth);
                return items.length == 0 ? PersistentList.EMPTY : PersistentList.create(Arrays.asList(items));
            case '#':
                return dispatched(depth);
            case '\\':
                return character();
            default:
                return c == '-' || (c >= '0' && c <= '9') ? number() : token();
        }
    }

    private Object map(int depth) {
        Object[] items = elements('}', depth);
        if ((items.length & 1) == 1) {
            throw Elsewhere.INSTANCE;
        }
        return RT.map(items);
    }

    /** What follows the bracket here, up to {@code close}. */
    private Object[] elements(char close, int depth) {
        next++;
        int base = held;
        while (true) {
            skipSpace();
            if (next == end) {
                throw Elsewhere.INSTANCE;
            }
            if (bytes[next] == close) {
                next++;
                Object[] items = Arrays.copyOfRange(stack, base, held);
                Arrays.fill(stack, base, held, null);
                held = base;
                return items;
            }
            Object item = value(depth + 1);
            if (held == stack.length) {
                stack = Arrays.copyOf(stack, 2 * held);
            }
            stack[held++] = item;
        }
    }

    /** A set, or a tagged value. */
    private Object dispatched(int depth) {
        next++;
        if (next == end) {
            throw Elsewhere.INSTANCE;
        }
        byte c = bytes[next];
        if (c == '{') {
            return PersistentHashSet.createWithCheck(Arrays.asList(elements('}', depth)));
        }
        if (c < 0 || (KIND[c] & LETTER) == 0) {
            throw Elsewhere.INSTANCE;
        }
        Object tag = token();
        if (!(tag instanceof Symbol)) {
            throw Elsewhere.INSTANCE;
        }
        return tagged.invoke(tag, value(depth + 1));
    }

    private Object character() {
        byte c = next + 1 < end ? bytes[next + 1] : -1;
        if (c < 0 || (KIND[c] & (LETTER | DIGIT)) == 0) {
            throw Elsewhere.INSTANCE;
        }
        next += 2;
        endOfToken();
        return (char) c;
    }

    /** Makes sure that what was read ends here. */
    private void endOfToken() {
        if (next < end && (bytes[next] < 0 || (KIND[bytes[next]] & (SPACE | CLOSING)) == 0)) {
            throw Elsewhere.INSTANCE;
        }
    }

    // ------------------------------------------------------------------------------------------------- strings

    private String string() {
        int start = ++next;
        int seen = 0;
        for (int i = start; i < end; i++) {
            byte c = bytes[i];
            if (c == '"') {
                next = i + 1;
                return text(start, i, seen < 0);
            }
            if (c == '\\') {
                return escaped(start, i);
            }
            seen |= c;
        }
        throw Elsewhere.INSTANCE;
    }

    private String text(int from, int to, boolean wide) {
        if (!wide) {
            return new String(bytes, from, to - from, StandardCharsets.ISO_8859_1);
        }
        String text = new String(bytes, from, to - from, StandardCharsets.UTF_8);
        if (text.indexOf('\ufffd') >= 0) {
            // Perhaps no UTF-8: how much of it one replacement stands for depends on what follows.
            throw Elsewhere.INSTANCE;
        }
        return text;
    }

    /** The string from {@code start}, with the first backslash at {@code at}. */
    private String escaped(int start, int at) {
        StringBuilder out = new StringBuilder(2 * (at - start) + 16);
        int from = start;
        for (int i = at; i < end; i++) {
            byte c = bytes[i];
            if (c == '"') {
                next = i + 1;
                return out.append(text(from, i, true)).toString();
            }
            if (c == '\\') {
                out.append(text(from, i, true));
                i++;
                out.append(meant(i < end ? bytes[i] : 0));
                from = i + 1;
            }
        }
        throw Elsewhere.INSTANCE;
    }

    private static char meant(byte c) {
        switch (c) {
            case '"':
                return '"';
            case '\\':
                return '\\';
            case 'n':
                return '\n';
            case 't':
                return '\t';
            case 'r':
                return '\r';
            default:
                throw Elsewhere.INSTANCE;
        }
    }

    // ------------------------------------------------------------------------------------------------- numbers

    private Object number() {
        int start = next;
        boolean negative = bytes[next] == '-';
        if (negative) {
            next++;
        }
        int first = next;
        long n = digits(0);
        int whole = next - first;
        byte c = next < end ? bytes[next] : (byte) ' ';
        if (whole == 0) {
            throw Elsewhere.INSTANCE;       // A symbol, such as `-`.
        }
        if (c == '.' || c == 'e' || c == 'E') {
            return floating(start, negative, n, whole);
        }
        endOfToken();
        if (whole > DIGITS_MAX || (whole > 1 && bytes[first] == '0')) {
            throw Elsewhere.INSTANCE;       // A big one; an octal one.
        }
        return negative ? -n : n;
    }

    /** {@code n} with the digits from here on behind it; nonsense beyond {@link #DIGITS_MAX}. */
    private long digits(long n) {
        while (next < end && bytes[next] >= '0' && bytes[next] <= '9') {
            n = 10 * n + (bytes[next++] - '0');
        }
        return n;
    }

    private Object floating(int start, boolean negative, long n, int whole) {
        int fraction = 0;
        if (bytes[next] == '.') {
            int from = ++next;
            n = digits(n);
            fraction = next - from;
        }
        boolean exact = whole + fraction <= EXACT_DIGITS;
        if (next < end && (bytes[next] == 'e' || bytes[next] == 'E')) {
            exact = false;
            exponent();
        }
        endOfToken();
        if (exact) {
            double d = n / POWERS_OF_TEN[fraction];
            return negative ? -d : d;
        }
        return Double.parseDouble(new String(bytes, start, next - start, StandardCharsets.ISO_8859_1));
    }

    private void exponent() {
        next++;
        if (next < end && (bytes[next] == '-' || bytes[next] == '+')) {
            next++;
        }
        int from = next;
        digits(0);
        if (next == from) {
            throw Elsewhere.INSTANCE;
        }
    }

    // -------------------------------------------------------------------------------------------------- tokens

    /** nil, true, false, a keyword or a symbol, of characters that have no meaning of their own. */
    private Object token() {
        int start = next;
        int hash = 0;
        while (next < end) {
            byte c = bytes[next];
            if (c < 0) {
                throw Elsewhere.INSTANCE;
            }
            if ((KIND[c] & (SPACE | CLOSING | OPENING)) != 0) {
                break;
            }
            hash = 31 * hash + c;
            next++;
        }
        int slot = (hash ^ (hash >>> 10)) & (KNOWN - 1);
        Known known = TOKENS[slot];
        if (known != null && Arrays.equals(known.text, 0, known.text.length, bytes, start, next)) {
            return known.token;
        }
        Object token = token(start, next);
        if (next - start <= KNOWN_BYTES_MAX) {
            TOKENS[slot] = new Known(Arrays.copyOfRange(bytes, start, next), token);
        }
        return token;
    }

    private Object token(int from, int to) {
        boolean keyword = bytes[from] == ':';
        int start = keyword ? from + 1 : from;
        int slash = -1;
        for (int i = start; i < to; i++) {
            if (bytes[i] == '/' && slash < 0) {
                slash = i;
            }
        }
        if (slash >= 0) {
            part(start, slash);
            part(slash + 1, to);
        } else {
            part(start, to);
        }
        String text = new String(bytes, start, to - start, StandardCharsets.ISO_8859_1);
        if (keyword) {
            return Keyword.intern(Symbol.intern(text));
        }
        switch (text) {
            case "nil":
                return null;
            case "true":
                return Boolean.TRUE;
            case "false":
                return Boolean.FALSE;
            default:
                return Symbol.intern(text);
        }
    }

    /** Makes sure that a namespace or a name is ordinary. */
    private void part(int from, int to) {
        if (from == to || (KIND[bytes[from]] & FIRST) == 0) {
            throw Elsewhere.INSTANCE;
        }
        for (int i = from + 1; i < to; i++) {
            if ((KIND[bytes[i]] & LATER) == 0) {
                throw Elsewhere.INSTANCE;
            }
        }
    }
}
