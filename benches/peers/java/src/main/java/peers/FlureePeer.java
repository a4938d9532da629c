package peers;

import clojure.java.api.Clojure;
import clojure.lang.AFunction;
import clojure.lang.IFn;
import clojure.lang.Indexed;
import clojure.lang.Keyword;
import java.io.IOException;
import java.util.Map;

/** fluree/raft, whose jar the user provides: all three nodes in this process, see {@code peers/fluree.clj}. */
final class FlureePeer implements Peer {
    private static final String NAMESPACE = "peers.fluree";
    private static final Keyword ERROR = Keyword.intern("error");

    private final Object nodes;

    FlureePeer(final Options options) {
        Clojure.var("clojure.core", "require").invoke(Clojure.read(NAMESPACE));
        nodes = function("start").invoke(options.dir().toString());
    }

    private static IFn function(final String name) {
        return Clojure.var(NAMESPACE, name);
    }

    @Override
    public boolean leads() {
        return function("leader").invoke(nodes) != null;
    }

    @Override
    public long term() {
        final Object leader = function("leader").invoke(nodes);
        return leader == null ? -1 : ((Number) ((Indexed) leader).nth(1)).longValue();
    }

    @Override
    public long applied() {
        return ((Number) function("applied").invoke(nodes)).longValue();
    }

    @Override
    public void load(final int inFlight, final int bytes, final Clock clock) throws IOException, InterruptedException {
        final Indexed leader = (Indexed) function("leader").invoke(nodes);
        if (leader == null) {
            throw new IOException("There is no leader.");
        }
        final IFn submit = (IFn) function("submitter").invoke(nodes, leader.nth(0));
        final Object command = function("command").invoke(bytes);
        ClosedLoop.run(inFlight, clock, slot -> submit.invoke(command, new Done(slot)));
    }

    @Override
    public void close() {
        function("close").invoke(nodes);
    }

    /** fluree/raft calls only what is `fn?`: hence AFunction. */
    private static final class Done extends AFunction {
        private final ClosedLoop.Slot slot;

        Done(final ClosedLoop.Slot slot) {
            this.slot = slot;
        }

        @Override
        public Object invoke(final Object result) {
            if (result instanceof Throwable failure) {
                slot.failed(failure);
            } else if (result instanceof Map<?, ?> map && map.containsKey(ERROR)) {
                slot.failed(new IOException(String.valueOf(map)));
            } else {
                slot.completed();
            }
            return null;
        }
    }
}
