package quorate.jni;

import java.nio.ByteBuffer;

/** A JVM that ends without closing its session; the script checks that it does, and with which exit code. */
public final class ExitTest {
    private ExitTest() {
    }

    /** Leaves a session with pending work and a daemon thread inside a poll, then exits with 7 or returns. */
    public static void main(String[] args) throws Exception {
        NativeLibrary.load();
        Client client = new Client("{:engine :echo :mirror true}");
        Native.attach(client.handle, Native.APPLY, ByteBuffer.allocateDirect(1 << 16));
        Thread waiting = new Thread(() -> {
            while (Native.poll(client.handle, Native.APPLY, 0, 600_000) >= 0) {
                Thread.onSpinWait();
            }
        });
        waiting.setDaemon(true);
        waiting.start();
        for (int n = 0; n < 100; n++) {
            client.submit("!echo delay 600000");
            client.submit("plain");
        }
        client.await(100);
        if (args[0].equals("exit")) {
            System.exit(7);
        }
    }
}
