package quorate.jni;

import java.io.File;
import java.lang.reflect.InvocationTargetException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;

/** How the library is found. Each argument is one scenario, for a JVM of its own. */
public final class LoaderTest {
    private LoaderTest() {
    }

    /** Runs the scenario that the first argument names. */
    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "found":
                System.out.println("from " + NativeLibrary.load());
                Check.equal(NativeLibrary.load(), NativeLibrary.load(), "where it was loaded from");
                Native.close(Client.open("{:engine :echo}"));
                break;
            case "missing":
                Check.refused(Code.INVALID, "-Dquorate.library=PATH", NativeLibrary::load);
                Check.refused(Code.INVALID, "java.library.path", NativeLibrary::load);
                Check.refused(Code.INVALID, NativeLibrary.resource(), NativeLibrary::load);
                break;
            case "nowhere":
                Check.refused(Code.INVALID, "does not exist", NativeLibrary::load);
                break;
            case "garbage":
                Path garbage = Files.createTempFile("garbage", ".so");
                System.setProperty(NativeLibrary.PROPERTY, garbage.toString());
                Check.refused(Code.INVALID, "cannot be loaded", NativeLibrary::load);
                Files.delete(garbage);
                break;
            case "twice":
                twice(args[1]);
                break;
            case "threads":
                threads();
                break;
            default:
                throw new IllegalArgumentException(args[0]);
        }
    }

    /** A second class loader: refused for the same file, a copy of its own from a jar. */
    private static void twice(String outcome) throws Exception {
        NativeLibrary.load();
        String[] path = System.getProperty("java.class.path").split(File.pathSeparator);
        URL[] urls = new URL[path.length];
        for (int n = 0; n < path.length; n++) {
            urls[n] = new File(path[n]).toURI().toURL();
        }
        try (URLClassLoader other = new URLClassLoader(urls, ClassLoader.getPlatformClassLoader())) {
            Class<?> library = Class.forName("quorate.jni.NativeLibrary", true, other);
            try {
                library.getMethod("load").invoke(null);
                Check.equal("loads", outcome, "the second class loader");
                Class<?> natives = Class.forName("quorate.jni.Native", true, other);
                long first = Client.open("{:engine :echo}");
                long second = (long) natives.getMethod("open", byte[].class).invoke(null, (Object) "{:engine :echo}".getBytes());
                Check.equal(first, second, "a table of its own begins with the same handle");
            } catch (InvocationTargetException e) {
                Check.equal("refused", outcome, "the second class loader (" + e.getCause() + ")");
                Check.that(e.getCause().getMessage().contains("another class loader"), e.getCause().getMessage());
            }
        }
    }

    private static void threads() throws Exception {
        Thread[] threads = new Thread[16];
        for (int n = 0; n < threads.length; n++) {
            threads[n] = new Thread(() -> {
                NativeLibrary.load();
                Native.close(Client.open("{:engine :echo}"));
            });
            threads[n].setUncaughtExceptionHandler((thread, e) -> {
                e.printStackTrace(System.out);
                Runtime.getRuntime().halt(1);
            });
        }
        for (Thread thread : threads) {
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
    }
}
