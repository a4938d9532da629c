package quorate.jni;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/**
 * Finds the native library and loads it, once: from {@code -Dquorate.library=PATH}, else from a directory of
 * {@code java.library.path}, else the copy inside the jar, under {@code native/OS-ARCH/} (such as
 * {@code native/linux-x86_64/libquorate.so}), by way of a temporary file.
 *
 * <p>The JVM lets one class loader have a given file's library. A second one gets a sentence that says so when the
 * library is a file; from inside the jar each class loader gets a copy of its own, which knows nothing of the other's
 * sessions.
 *
 * <p>From JDK 24 on the JVM warns when a library is loaded, unless it is started with
 * {@code --enable-native-access=ALL-UNNAMED} or from a jar with {@code Enable-Native-Access: ALL-UNNAMED} in its manifest.
 */
public final class NativeLibrary {
    /** The version of the native library that these classes belong to. */
    public static final String VERSION = "0.2.0";
    /** The system property that names the library's file. */
    public static final String PROPERTY = "quorate.library";

    private static String loadedFrom;

    private NativeLibrary() {
    }

    /**
     * Loads the native library, unless that was done. May be called from any thread, again and again; after a failure
     * it tries anew.
     *
     * @return where the library was loaded from
     * @throws QuorateException {@link Code#INVALID} when no library is found or it cannot be loaded, naming what was
     *     tried; {@link Code#REFUSED} when it is of another version than these classes
     */
    public static synchronized String load() {
        if (loadedFrom == null) {
            String found = find();
            checkVersion(found);
            loadedFrom = found;
        }
        return loadedFrom;
    }

    /**
     * Where the copy for this machine lies inside the jar.
     *
     * @return such as {@code native/linux-x86_64/libquorate.so}
     */
    public static String resource() {
        return "native/" + os() + "-" + arch() + "/" + fileName();
    }

    private static String find() {
        String given = System.getProperty(PROPERTY);
        if (given != null && !given.isEmpty()) {
            File file = new File(given).getAbsoluteFile();
            if (!file.isFile()) {
                throw invalid("The native library named by -D" + PROPERTY + "=" + given + " does not exist.", null);
            }
            return loadFile(file);
        }
        List<String> tried = new ArrayList<>();
        String path = System.getProperty("java.library.path", "");
        for (String directory : path.split(File.pathSeparator)) {
            File file = new File(directory.isEmpty() ? "." : directory, fileName()).getAbsoluteFile();
            if (file.isFile()) {
                return loadFile(file);
            }
            tried.add(file.getPath());
        }
        return loadResource(tried);
    }

    private static String loadFile(File file) {
        try {
            System.load(file.getPath());
        } catch (UnsatisfiedLinkError e) {
            throw invalid("The native library " + file + " cannot be loaded: " + reason(e), e);
        }
        return file.getPath();
    }

    private static String reason(UnsatisfiedLinkError e) {
        String message = String.valueOf(e.getMessage());
        if (message.contains("already loaded in another classloader")) {
            return "another class loader of this JVM has loaded it; put Quorate where both find the same classes.";
        }
        return message;
    }

    private static String loadResource(List<String> tried) {
        String resource = resource();
        try (InputStream in = NativeLibrary.class.getClassLoader().getResourceAsStream(resource)) {
            if (in == null) {
                throw invalid("Quorate's native library is missing: name its file with -D" + PROPERTY
                    + "=PATH, put it into a directory of java.library.path, or use the jar that holds " + resource
                    + "; tried " + String.join(", ", tried) + " and the class path.", null);
            }
            return loadCopy(in, resource);
        } catch (IOException e) {
            throw invalid("The native library cannot be copied out of the jar to " + System.getProperty("java.io.tmpdir")
                + ": " + e.getMessage() + "; name another directory with -Djava.io.tmpdir=PATH.", e);
        }
    }

    private static String loadCopy(InputStream in, String resource) throws IOException {
        Path copy = Files.createTempFile("quorate-", "-" + fileName());
        copy.toFile().deleteOnExit();
        Files.copy(in, copy, StandardCopyOption.REPLACE_EXISTING);
        loadFile(copy.toFile());
        if (!os().equals("windows")) {
            // It stays mapped. So nothing is left behind when the JVM is killed.
            Files.delete(copy);
        }
        return "jar:" + resource;
    }

    private static void checkVersion(String found) {
        String version;
        try {
            version = Native.version();
        } catch (UnsatisfiedLinkError e) {
            throw new QuorateException(Code.REFUSED, "The native library " + found + " is not Quorate's.", e);
        }
        if (!VERSION.equals(version)) {
            throw new QuorateException(Code.REFUSED, "The native library " + found + " has version " + version
                + ", but these classes belong to version " + VERSION + ".", null);
        }
    }

    private static QuorateException invalid(String message, Throwable cause) {
        return new QuorateException(Code.INVALID, message, cause);
    }

    private static String fileName() {
        return System.mapLibraryName("quorate");
    }

    private static String os() {
        String name = System.getProperty("os.name", "").toLowerCase(Locale.ROOT);
        if (name.startsWith("windows")) {
            return "windows";
        }
        return name.contains("mac") ? "macos" : "linux";
    }

    private static String arch() {
        String name = System.getProperty("os.arch", "").toLowerCase(Locale.ROOT);
        switch (name) {
            case "amd64":
            case "x86-64":
                return "x86_64";
            case "arm64":
                return "aarch64";
            default:
                return name;
        }
    }
}
