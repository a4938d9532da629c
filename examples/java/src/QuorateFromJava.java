import clojure.java.api.Clojure;
import clojure.lang.IFn;
import clojure.lang.Keyword;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import quorate.jni.NativeLibrary;

/**
 * Quorate from plain Java: opens the key-value store on a single node, counts a visit, and closes it.
 *
 * <p>{@code QuorateFromJava DIRECTORY}. With more servers only the configuration changes, see the README.
 */
public final class QuorateFromJava {
    private static final long PATIENCE_SECONDS = 30;

    private QuorateFromJava() {}

    /** Clojure's functions are objects, looked up once by their names. */
    private static IFn function(String namespace, String name) {
        Clojure.var("clojure.core", "require").invoke(Clojure.read(namespace));
        return Clojure.var(namespace, name);
    }

    private static final IFn HASH_MAP = Clojure.var("clojure.core", "hash-map");
    private static final IFn OPEN = function("quorate.kv", "open");
    private static final IFn CLOSE = function("quorate.kv", "close");
    private static final IFn PUT = function("quorate.kv", "put!");
    private static final IFn GET = function("quorate.kv", "get");

    private static Keyword key(String name) {
        return Keyword.intern(name);
    }

    /** What {@code quorate.kv/open} takes: the map that the documentation of {@code quorate.raft/start} describes. */
    private static Object config(String directory) {
        return HASH_MAP.invoke(
                key("this-server"), "solo",
                key("servers"), Clojure.read("[\"solo\"]"),
                key("log-directory"), directory,
                key("default-command-timeout"), 20_000L);
    }

    @SuppressWarnings("unchecked")
    private static CompletableFuture<Map<Keyword, Object>> get(Object store, String key) {
        return (CompletableFuture<Map<Keyword, Object>>) GET.invoke(store, key);
    }

    @SuppressWarnings("unchecked")
    private static CompletableFuture<Map<Keyword, Object>> put(Object store, String key, Object value) {
        return (CompletableFuture<Map<Keyword, Object>>) PUT.invoke(store, key, value);
    }

    /** A map at {@code key}, or null; its {@code :value} is what was put. */
    private static long visits(Map<Keyword, Object> found) {
        return found == null ? 0 : (Long) found.get(key("value"));
    }

    /** Opens, counts, closes. */
    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 1) {
            System.err.println("QuorateFromJava DIRECTORY");
            System.exit(2);
        }
        System.out.println("library: " + NativeLibrary.load());
        Object store = OPEN.invoke(config(arguments[0]));
        try {
            // Every call returns at once; futures are chained, and waited for once.
            CompletableFuture<Long> counted = get(store, "visits")
                    .thenApply(QuorateFromJava::visits)
                    .thenCompose(before -> put(store, "visits", before + 1))
                    .thenCompose(written -> get(store, "visits"))
                    .thenApply(QuorateFromJava::visits);
            System.out.println("visits: " + counted.get(PATIENCE_SECONDS, TimeUnit.SECONDS));
        } finally {
            CLOSE.invoke(store);
        }
    }
}
