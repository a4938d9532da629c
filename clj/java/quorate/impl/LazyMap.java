package quorate.impl;

import clojure.lang.APersistentMap;
import clojure.lang.IFn;
import clojure.lang.IKVReduce;
import clojure.lang.IMapEntry;
import clojure.lang.IObj;
import clojure.lang.IPersistentCollection;
import clojure.lang.IPersistentMap;
import clojure.lang.ISeq;
import java.util.Iterator;

/**
 * A map that is made when somebody looks into it: what each entry's function is given and few functions look at. Making it must
 * have no effect and always give the same map, for two threads may do it at once.
 */
@SuppressWarnings({"rawtypes", "serial"})
public final class LazyMap extends APersistentMap implements IObj, IKVReduce {
    private final IFn make;
    private final Object of;
    private volatile IPersistentMap made;

    /** The map that {@code make} returns when it is called with {@code of}. */
    public LazyMap(IFn make, Object of) {
        this.make = make;
        this.of = of;
    }

    private IPersistentMap made() {
        IPersistentMap found = made;
        if (found == null) {
            found = (IPersistentMap) make.invoke(of);
            made = found;
        }
        return found;
    }

    @Override
    public Object valAt(Object key) {
        return made().valAt(key);
    }

    @Override
    public Object valAt(Object key, Object notFound) {
        return made().valAt(key, notFound);
    }

    @Override
    public boolean containsKey(Object key) {
        return made().containsKey(key);
    }

    @Override
    public IMapEntry entryAt(Object key) {
        return made().entryAt(key);
    }

    @Override
    public IPersistentMap assoc(Object key, Object value) {
        return made().assoc(key, value);
    }

    @Override
    public IPersistentMap assocEx(Object key, Object value) {
        return made().assocEx(key, value);
    }

    @Override
    public IPersistentMap without(Object key) {
        return made().without(key);
    }

    @Override
    public int count() {
        return made().count();
    }

    @Override
    public IPersistentCollection empty() {
        return made().empty();
    }

    @Override
    public ISeq seq() {
        return made().seq();
    }

    @Override
    public Iterator iterator() {
        return made().iterator();
    }

    @Override
    public Object kvreduce(IFn f, Object init) {
        return ((IKVReduce) made()).kvreduce(f, init);
    }

    @Override
    public IPersistentMap meta() {
        return ((IObj) made()).meta();
    }

    @Override
    public IObj withMeta(IPersistentMap meta) {
        return ((IObj) made()).withMeta(meta);
    }
}
