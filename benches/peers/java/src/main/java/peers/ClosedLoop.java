package peers;

import java.io.IOException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/** So many commands in flight; each completion submits the next, on the thread that completes it. */
final class ClosedLoop {
    /** How long the last commands may take once the run is over, in seconds. */
    private static final int PATIENCE_S = 30;

    /** Submits one command; {@code slot} is told of its end exactly once. */
    interface Submit {
        void submit(Slot slot);
    }

    private final Submit submit;
    private final Clock clock;
    private final CountDownLatch busy;
    private final AtomicReference<Throwable> failure = new AtomicReference<>();

    private ClosedLoop(final int inFlight, final Clock clock, final Submit submit) {
        this.submit = submit;
        this.clock = clock;
        busy = new CountDownLatch(inFlight);
    }

    /** Runs to the end of {@code clock}; fails with the first failure of a command. */
    static void run(final int inFlight, final Clock clock, final Submit submit) throws IOException, InterruptedException {
        final ClosedLoop loop = new ClosedLoop(inFlight, clock, submit);
        clock.start();
        for (int i = 0; i < inFlight; i++) {
            loop.new Slot().next(System.nanoTime());
        }
        while (!loop.busy.await(100, TimeUnit.MILLISECONDS) && clock.running(System.nanoTime())) {
            // Until all have ended early, by a failure, or the time is over.
        }
        final boolean ended = loop.busy.await(PATIENCE_S, TimeUnit.SECONDS);
        if (loop.failure.get() != null) {
            throw new IOException("A command failed: " + loop.failure.get(), loop.failure.get());
        }
        if (!ended) {
            throw new IOException(loop.busy.getCount() + " commands got no answer in " + PATIENCE_S + " s.");
        }
    }

    /** One command after the other. */
    final class Slot {
        private long submitted;

        private void next(final long now) {
            submitted = now;
            try {
                submit.submit(this);
            } catch (final RuntimeException thrown) {
                failed(thrown);
            }
        }

        /** The command was applied. */
        void completed() {
            final long now = System.nanoTime();
            clock.completed(submitted, now);
            if (clock.running(now)) {
                next(now);
            } else {
                busy.countDown();
            }
        }

        /** The command was not applied; this slot ends. */
        void failed(final Throwable thrown) {
            failure.compareAndSet(null, thrown);
            busy.countDown();
        }
    }
}
