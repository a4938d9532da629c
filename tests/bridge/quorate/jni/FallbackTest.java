package quorate.jni;

/** What Java gets when the native library cannot build its exception; the script runs this without its class. */
public final class FallbackTest {
    private FallbackTest() {
    }

    /** Fails unless a plain RuntimeException with the sentence and the code comes. */
    public static void main(String[] args) {
        System.load(args[0]);
        try {
            Native.open(null);
        } catch (RuntimeException e) {
            if (e.getClass() == RuntimeException.class && e.getMessage().equals("The configuration is null. (code 2)")) {
                return;
            }
            throw e;
        }
        throw new AssertionError("nothing was thrown");
    }
}
