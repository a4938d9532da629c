//! The eight natives of `quorate.jni.Native`. Each checks its arguments, does its work with no lock held, and turns every
//! failure and every panic into an exception.
//!
//! Those that are called for each entry go to the JVM's function table themselves: the frame, the thread-local state and the
//! checks for exceptions around each call that `jni` adds cost as much as the rest of a submission.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use bytes::Bytes;
use jni::objects::{JByteArray, JByteBuffer, JClass, JString};
use jni::sys::{JNIEnv, jbyteArray, jint, jlong};
use jni::{Env, EnvUnowned};
use quorate_engine::session::{Kind, Op, Polled, Queue};
use quorate_engine::{Code, Failure, limits};

use crate::buffer::DirectBuffer;
use crate::table::Table;
use crate::throw::{Fault, Throw, out_of_range};
use crate::{VERSION, log_lines, start};

/// Largest body of `control`, in bytes: the host's answer to another's question with its ticket, rounded up.
const CONTROL_BYTES_MAX: usize = limits::FRAME_BYTES_MAX;

/// The sessions of this library.
pub(crate) static SESSIONS: Table<DirectBuffer> = Table::new(&log_lines::LINES);

/// `static native long open(byte[] configEdn)`
// SAFETY: the name is what the JVM looks for, and belongs to this library alone; the JVM calls it as declared in Java.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_jni_Native_open<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    config: JByteArray<'local>,
) -> jlong {
    env.with_env(|env| -> Result<jlong, Fault> {
        let config = copy(env, &config, "The configuration", limits::ENTRY_BYTES_MAX)?;
        Ok(SESSIONS.insert(start::start(&config)?))
    })
    .resolve::<Throw>()
}

/// `static native void attach(long handle, int queue, ByteBuffer direct)`
// SAFETY: as for `open`.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_jni_Native_attach<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    queue: jint,
    buffer: JByteBuffer<'local>,
) {
    env.with_env(|env| -> Result<(), Fault> {
        let queue = number::<Queue>("The queue", queue)?;
        let buffer = DirectBuffer::new(env, &buffer)?;
        Ok(SESSIONS.attach(handle, queue, buffer)?)
    })
    .resolve::<Throw>()
}

/// `static native long submit(long handle, int kind, byte[] body, long timeoutMs)`
// SAFETY: as for `open`.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_jni_Native_submit<'local>(
    env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    kind: jint,
    body: JByteArray<'local>,
    timeout_ms: jlong,
) -> jlong {
    let raw = env.as_raw();
    lean(env, || submit(raw, handle, kind, None, body.as_raw(), timeout_ms))
}

/// `static native long submitPrefixed(long handle, int kind, int first, byte[] rest, long timeoutMs)`
// SAFETY: as for `open`.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_jni_Native_submitPrefixed<'local>(
    env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    kind: jint,
    first: jint,
    rest: JByteArray<'local>,
    timeout_ms: jlong,
) -> jlong {
    let raw = env.as_raw();
    lean(env, || {
        let first = u8::try_from(first).map_err(|_| out_of_range("The first byte", first.into()))?;
        submit(raw, handle, kind, Some(first), rest.as_raw(), timeout_ms)
    })
}

/// `static native int poll(long handle, int queue, long acknowledged, long waitMs)`
// SAFETY: as for `open`.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_jni_Native_poll<'local>(
    env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    queue: jint,
    acknowledged: jlong,
    wait_ms: jlong,
) -> jint {
    lean(env, || {
        let queue = number::<Queue>("The queue", queue)?;
        let wait = duration("The wait", wait_ms)?;
        let acknowledged =
            u64::try_from(acknowledged).map_err(|_| out_of_range("The acknowledged index", acknowledged))?;
        polled(SESSIONS.poll(handle, queue, acknowledged, wait)?)
    })
}

/// `static native byte[] control(long handle, int op, byte[] body)`
// SAFETY: as for `open`.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_jni_Native_control<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    op: jint,
    body: JByteArray<'local>,
) -> JByteArray<'local> {
    env.with_env(|env| -> Result<JByteArray<'local>, Fault> {
        let op = number::<Op>("The operation", op)?;
        SESSIONS.check_open(handle)?;
        let body = copy(env, &body, "The body", CONTROL_BYTES_MAX)?;
        let answer = SESSIONS.control(handle, op, body)?;
        Ok(env.byte_array_from_slice(&answer)?)
    })
    .resolve::<Throw>()
}

/// `static native void close(long handle)`
// SAFETY: as for `open`.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_jni_Native_close<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
) {
    env.with_env(|_| -> Result<(), Fault> { Ok(SESSIONS.close(handle)?) }).resolve::<Throw>()
}

/// `static native String version()`
// SAFETY: as for `open`.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_jni_Native_version<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
) -> JString<'local> {
    env.with_env(|env| -> Result<JString<'local>, Fault> { Ok(JString::from_str(env, VERSION)?) }).resolve::<Throw>()
}

/// What `work` returns. Only when it fails or panics, which becomes an exception, is anything of `jni` set up.
fn lean<T: Default>(mut env: EnvUnowned<'_>, work: impl FnOnce() -> Result<T, Fault>) -> T {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => value,
        Ok(Err(fault)) => env.with_env(|_| -> Result<T, Fault> { Err(fault) }).resolve::<Throw>(),
        Err(panic) => env.with_env(|_| -> Result<T, Fault> { resume_unwind(panic) }).resolve::<Throw>(),
    }
}

fn submit(
    env: *mut JNIEnv,
    handle: jlong,
    kind: jint,
    first: Option<u8>,
    rest: jbyteArray,
    timeout_ms: jlong,
) -> Result<jlong, Fault> {
    let kind = number::<Kind>("The kind of submission", kind)?;
    let timeout = duration("The timeout", timeout_ms)?;
    let session = SESSIONS.open_session(handle)?;
    let body = joined(env, first, rest)?;
    Ok(session.submit(kind, body, timeout)? as jlong)
}

/// `first`, if there is one, and a copy of the Java array `rest` of this native's own caller, made once.
fn joined(env: *mut JNIEnv, first: Option<u8>, rest: jbyteArray) -> Result<Bytes, Fault> {
    if rest.is_null() {
        return Err(Failure::invalid("The body is null.").into());
    }
    // SAFETY: the JVM called this native with `env`, its table of functions for this thread, and with `rest`, a byte array that is
    // not null; both are valid until the native returns.
    let length = unsafe { ((**env).v1_1.GetArrayLength)(env, rest) };
    let (prefix, rest_bytes) = (usize::from(first.is_some()), length as usize);
    check_size("The body", prefix + rest_bytes, limits::ENTRY_BYTES_MAX)?;
    let mut body = Vec::with_capacity(prefix + rest_bytes);
    body.extend(first);
    // SAFETY: as above; the region is the whole array, so this throws nothing, and writes so many bytes behind the first, for which
    // there is room, before they are said to be there.
    unsafe {
        ((**env).v1_1.GetByteArrayRegion)(env, rest, 0, length, body.as_mut_ptr().add(prefix).cast());
        body.set_len(prefix + rest_bytes);
    }
    Ok(Bytes::from(body))
}

fn check_size(what: &str, bytes: usize, max: usize) -> Result<(), Failure> {
    if bytes <= max {
        return Ok(());
    }
    Err(Failure::new(Code::TooLarge, format!("{what} has {bytes} bytes; at most {max} are accepted.")))
}

/// Copies a Java array, once.
fn copy(env: &Env<'_>, array: &JByteArray<'_>, what: &str, max: usize) -> Result<Bytes, Fault> {
    if array.is_null() {
        return Err(Failure::invalid(format!("{what} is null.")).into());
    }
    check_size(what, array.len(env)?, max)?;
    Ok(Bytes::from(env.convert_byte_array(array)?))
}

fn number<T: TryFrom<u8, Error = Failure>>(what: &str, value: jint) -> Result<T, Fault> {
    let value = u8::try_from(value).map_err(|_| out_of_range(what, value.into()))?;
    Ok(T::try_from(value)?)
}

fn duration(what: &str, ms: jlong) -> Result<Duration, Fault> {
    u64::try_from(ms).map(Duration::from_millis).map_err(|_| out_of_range(what, ms))
}

/// What Java sees: bytes, 0 for none, -1 for closed, or what the next record needs as a negative number.
fn polled(polled: Polled) -> Result<jint, Fault> {
    let as_int = |bytes: usize| jint::try_from(bytes).map_err(|_| out_of_range("The size of a record", bytes as i64));
    match polled {
        Polled::Bytes(bytes) => as_int(bytes),
        Polled::NeedsBytes(bytes) => as_int(bytes).map(|bytes| -bytes),
        Polled::Closed => Ok(-1),
    }
}
