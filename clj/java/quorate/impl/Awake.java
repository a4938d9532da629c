package quorate.impl;

import java.util.concurrent.BlockingQueue;

/**
 * Waits awake for the next task, for a moment, before it sleeps: to wake a thread that sleeps takes longer than most tasks. It gives
 * its processor to any other thread between two looks, and goes without after waits that were in vain, ever longer. One thread at a
 * time. As {@code quorate_engine::spin}, which the engine's threads wait by.
 */
public final class Awake {
    private static final int IN_VAIN_MAX = 64;

    private final long windowNs;
    private int penalty;
    private int skip;

    /** @param windowNs for how long at a time, in nanoseconds; 0 for never */
    public Awake(long windowNs) {
        this.windowNs = windowNs;
    }

    /**
     * @param queue whose next element is waited for
     * @return the element
     * @throws InterruptedException when the thread is interrupted in its sleep
     */
    public Object take(BlockingQueue<?> queue) throws InterruptedException {
        Object next = queue.poll();
        if (next != null || windowNs == 0) {
            return next != null ? next : queue.take();
        }
        if (skip > 0) {
            skip--;
            return queue.take();
        }
        final long begun = System.nanoTime();
        do {
            Thread.yield();
            next = queue.poll();
        } while (next == null && System.nanoTime() - begun < windowNs);
        if (next != null) {
            penalty = 0;
            return next;
        }
        skip = penalty;
        penalty = Math.min(Math.max(1, 2 * penalty), IN_VAIN_MAX);
        return queue.take();
    }
}
