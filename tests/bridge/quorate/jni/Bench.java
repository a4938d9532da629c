package quorate.jni;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Echo round trips a second: one thread submits and polls, with N in flight. Not part of the tests. */
public final class Bench {
    private Bench() {
    }

    /** Prints a line for each number of submissions in flight. */
    public static void main(String[] args) {
        NativeLibrary.load();
        long handle = Client.open("{:engine :echo}");
        ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 20).order(ByteOrder.LITTLE_ENDIAN);
        Native.attach(handle, Native.EVENTS, buffer);
        for (int round = 0; round < 2; round++) {
            for (int window : new int[] {1, 64, 1024}) {
                double perSecond = run(handle, buffer, window, 3_000);
                if (round > 0) {
                    System.out.printf("%d in flight: %,.0f round trips/s%n", window, perSecond);
                }
            }
        }
        Native.close(handle);
    }

    private static double run(long handle, ByteBuffer buffer, int window, long ms) {
        byte[] body = new byte[128];
        long started = System.nanoTime();
        long done = 0;
        long inFlight = 0;
        while (System.nanoTime() - started < ms * 1_000_000) {
            for (; inFlight < window; inFlight++) {
                Native.submit(handle, 1, body, 10_000);
            }
            int bytes = Native.poll(handle, Native.EVENTS, 0, 10_000);
            for (int at = 0; at < bytes; at += 4 + buffer.getInt(at)) {
                done++;
                inFlight--;
            }
        }
        double seconds = (System.nanoTime() - started) / 1e9;
        while (inFlight > 0) {
            int bytes = Native.poll(handle, Native.EVENTS, 0, 10_000);
            for (int at = 0; at < bytes; at += 4 + buffer.getInt(at)) {
                inFlight--;
            }
        }
        return done / seconds;
    }
}
