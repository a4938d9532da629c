package peers;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * What a node is started with: {@code SYSTEM INDEX PORTS DIR FAST}.
 *
 * @param system which system
 * @param index 0, 1 or 2
 * @param ports of each node, on 127.0.0.1
 * @param dir the node's own directory, on the disk that is measured
 * @param fast a directory in memory, for what the system does not count on after a crash (Aeron's buffers)
 */
record Options(String system, int index, List<List<Integer>> ports, Path dir, Path fast) {
    /** Reads {@code 1/2/3,4/5/6,7/8/9} as the ports of three nodes. */
    static Options read(final String[] args) {
        if (args.length != 5) {
            throw new IllegalArgumentException("SYSTEM INDEX PORTS DIR FAST, not " + String.join(" ", args));
        }
        final List<List<Integer>> ports = new ArrayList<>();
        for (final String node : args[2].split(",")) {
            final List<Integer> own = new ArrayList<>();
            for (final String port : node.split("/")) {
                own.add(Integer.valueOf(port));
            }
            ports.add(own);
        }
        return new Options(args[0], Integer.parseInt(args[1]), ports, Path.of(args[3]), Path.of(args[4]));
    }

    /** The {@code number}th address of node {@code node}. */
    String address(final int node, final int number) {
        return "127.0.0.1:" + ports.get(node).get(number);
    }

    /** A setting that the driver may try other values of, from the environment: PEERS_NAME. */
    static String setting(final String name, final String ordinary) {
        final String value = System.getenv("PEERS_" + name);
        return value == null || value.isEmpty() ? ordinary : value;
    }
}
