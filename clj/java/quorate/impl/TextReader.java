package quorate.impl;

import java.io.PushbackReader;
import java.io.Reader;

/**
 * A text as the reader that {@code clojure.edn} wants, for one thread: the JDK's own takes a lock for each character.
 */
public final class TextReader extends PushbackReader {
    private final String text;
    private int next;

    /** Reads {@code text} from its start. */
    public TextReader(String text) {
        super(Reader.nullReader(), 1);
        this.text = text;
    }

    @Override
    public int read() {
        return next < text.length() ? text.charAt(next++) : -1;
    }

    @Override
    public void unread(int c) {
        next--;
    }

    @Override
    public int read(char[] into, int from, int length) {
        int n = Math.min(length, text.length() - next);
        if (n <= 0) {
            return length == 0 ? 0 : -1;
        }
        text.getChars(next, next + n, into, from);
        next += n;
        return n;
    }

    @Override
    public boolean ready() {
        return true;
    }

    @Override
    public boolean markSupported() {
        return false;
    }
}
