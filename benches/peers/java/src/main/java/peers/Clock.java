package peers;

import java.util.Locale;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.Recorder;

/** A run: a warm-up that does not count, then so many seconds that do; latencies from submission to completion. */
final class Clock {
    /** Longest latency that is told apart, in nanoseconds. */
    private static final long LONGEST_NS = 600_000_000_000L;

    private final long warmNs;
    private final long measureNs;
    private final Recorder recorder = new Recorder(LONGEST_NS, 3);
    private long begin;
    private long end;

    /** A run of {@code seconds} after {@code warm} seconds. */
    Clock(double warm, double seconds) {
        warmNs = (long) (warm * 1e9);
        measureNs = (long) (seconds * 1e9);
    }

    /** The first command is about to be submitted. */
    void start() {
        begin = System.nanoTime() + warmNs;
        end = begin + measureNs;
    }

    /** Whether commands are still to be submitted at {@code now}. */
    boolean running(long now) {
        return now - end < 0;
    }

    /** A command that was submitted at {@code submitted} completed at {@code now}; from any thread. */
    void completed(long submitted, long now) {
        if (now - begin >= 0 && now - end < 0) {
            recorder.recordValue(Math.min(Math.max(1, now - submitted), LONGEST_NS));
        }
    }

    /** The figures, as the protocol tells them. */
    String result() {
        final Histogram latencies = recorder.getIntervalHistogram();
        return String.format(Locale.ROOT, "ops=%d seconds=%.4f p50_us=%.1f p99_us=%.1f p999_us=%.1f max_us=%.1f",
            latencies.getTotalCount(), measureNs / 1e9, us(latencies, 50), us(latencies, 99), us(latencies, 99.9),
            latencies.getMaxValue() / 1e3);
    }

    private static double us(final Histogram latencies, final double percentile) {
        return latencies.getValueAtPercentile(percentile) / 1e3;
    }
}
