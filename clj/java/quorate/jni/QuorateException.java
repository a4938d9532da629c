package quorate.jni;

/**
 * The one exception of the native side: a code for programs, a sentence for people. The natives throw it; the native
 * library builds it by the constructor that takes a number and a message.
 */
public final class QuorateException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** The number of the code. */
    private final int code;

    /**
     * What the native library throws.
     *
     * @param code the number of a {@link Code}
     * @param message what happened and, where there is one, the way out
     */
    public QuorateException(int code, String message) {
        super(message);
        this.code = code;
    }

    /**
     * A failure with what caused it.
     *
     * @param code what kind of failure
     * @param message what happened and, where there is one, the way out
     * @param cause what caused it; may be null
     */
    public QuorateException(Code code, String message, Throwable cause) {
        super(message, cause);
        this.code = code.number();
    }

    /**
     * What kind of failure, as a number.
     *
     * @return the number of a {@link Code}
     */
    public int code() {
        return code;
    }

    /**
     * What kind of failure.
     *
     * @return the code
     */
    public Code kind() {
        return Code.of(code);
    }
}
