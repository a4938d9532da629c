import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * A system whose nodes speak the driver's protocol.
 *
 * @param key as {@code --only} names it
 * @param name as the tables name it
 * @param fsync what it does about fsync by its settings, in words; the counts are measured
 * @param program what starts a node, before SYSTEM INDEX PORTS DIR FAST
 * @param settings that differ from the usual ones, put into its environment as PEERS_NAME
 */
record PeerSystem(String key, String name, String fsync, List<String> program, Map<String, String> settings) {
    PeerSystem(final String key, final String name, final String fsync, final List<String> program) {
        this(key, name, fsync, program, Map.of());
    }

    /** How many processes it has: fluree/raft, without a transport, has its three nodes in one. */
    int processes() {
        return key.equals("fluree") ? 1 : 3;
    }

    /** Whether it says that a majority has a command on disk before it is acknowledged. */
    boolean durable() {
        return !key.equals("fluree");
    }

    /** What its entries are. */
    String variant() {
        return key.equals("fluree") ? "edn" : "bytes";
    }

    /** This system with other settings: NAME=VALUE each; they are part of its name. */
    PeerSystem with(final List<String> changes) {
        final Map<String, String> changed = new TreeMap<>();
        for (final String change : changes) {
            final int at = change.indexOf('=');
            if (at < 1) {
                throw new IllegalArgumentException(change + " is not NAME=VALUE.");
            }
            changed.put("PEERS_" + change.substring(0, at), change.substring(at + 1).replace(';', ','));
        }
        final String suffix = changes.isEmpty() ? "" : " " + String.join(" ", changes);
        return new PeerSystem(key, name + suffix, fsync, program, changed);
    }

    /** The command line of one node. */
    List<String> command(final int index, final String ports, final Path dir, final Path fast) {
        final List<String> words = new ArrayList<>(program);
        words.addAll(List.of(key, String.valueOf(index), ports, dir.toString(), fast.toString()));
        return words;
    }
}
