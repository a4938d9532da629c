package quorate.impl;

import clojure.lang.ExceptionInfo;
import clojure.lang.IBlockingDeref;
import clojure.lang.IDeref;
import clojure.lang.IPending;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * The answer to one request: a {@link CompletableFuture} with Clojure's manners.
 *
 * <p>{@code @answer} throws the failure itself, not an ExecutionException around it, with the waiting thread's stack.
 * Waiting on one of the threads that would have to bring the answer throws {@link IllegalStateException} at once: it
 * would wait for ever.
 */
public final class Answer extends CompletableFuture<Object> implements IDeref, IBlockingDeref, IPending {
    private final Thread[] bringers;

    /** An open answer that {@code bringers}, the node's own threads, must never wait for. */
    public Answer(Thread[] bringers) {
        this.bringers = bringers;
    }

    @Override
    public Object deref() {
        try {
            return get();
        } catch (ExecutionException e) {
            throw Answer.<RuntimeException>unchecked(asSeenHere(e.getCause()));
        } catch (InterruptedException e) {
            throw Answer.<RuntimeException>unchecked(e);
        }
    }

    @Override
    public Object deref(long ms, Object timeoutValue) {
        try {
            return get(ms, TimeUnit.MILLISECONDS);
        } catch (TimeoutException e) {
            return timeoutValue;
        } catch (ExecutionException e) {
            throw Answer.<RuntimeException>unchecked(asSeenHere(e.getCause()));
        } catch (InterruptedException e) {
            throw Answer.<RuntimeException>unchecked(e);
        }
    }

    @Override
    public boolean isRealized() {
        return isDone();
    }

    @Override
    public Object get() throws InterruptedException, ExecutionException {
        refuseToWaitForItself();
        return super.get();
    }

    @Override
    public Object get(long timeout, TimeUnit unit) throws InterruptedException, ExecutionException, TimeoutException {
        refuseToWaitForItself();
        return super.get(timeout, unit);
    }

    @Override
    public Object join() {
        refuseToWaitForItself();
        return super.join();
    }

    private void refuseToWaitForItself() {
        if (isDone()) {
            return;
        }
        Thread me = Thread.currentThread();
        for (Thread bringer : bringers) {
            if (me == bringer) {
                throw new IllegalStateException("The thread " + me.getName()
                        + " brings this answer, so it cannot wait for it: go on in .thenApply, or wait on another thread.");
            }
        }
    }

    private static Throwable asSeenHere(Throwable failure) {
        if (failure instanceof ExceptionInfo) {
            ExceptionInfo info = (ExceptionInfo) failure;
            return new ExceptionInfo(info.getMessage(), info.data, info);
        }
        return failure;
    }

    @SuppressWarnings("unchecked")
    private static <T extends Throwable> RuntimeException unchecked(Throwable failure) throws T {
        throw (T) failure;
    }
}
