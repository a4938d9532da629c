package quorate.jni;

/** Assertions that always run. */
final class Check {
    /** Something that may throw. */
    interface Action {
        void run() throws Exception;
    }

    private Check() {
    }

    static void that(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void equal(Object expected, Object found, String what) {
        that(expected.equals(found), what + ": expected " + expected + ", found " + found);
    }

    /** Runs {@code action}, which must throw a QuorateException of that code whose message holds {@code words}. */
    static void refused(Code code, String words, Action action) throws Exception {
        try {
            action.run();
        } catch (QuorateException e) {
            equal(code, e.kind(), "code of \"" + e.getMessage() + "\"");
            equal(code.number(), e.code(), "number of the code");
            that(e.getMessage().contains(words), "\"" + e.getMessage() + "\" does not say \"" + words + "\"");
            return;
        }
        throw new AssertionError("not refused; expected " + code + " with \"" + words + "\"");
    }
}
