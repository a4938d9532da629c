//! The measured alternative to polling: one call into the JVM for each completion. For the benchmark of the bridge only, behind the
//! feature `upcalls`, which no normal build has.
//!
//! The calls happen on a Java thread that waits inside [`Java_quorate_bench_Upcalls_run`], so nothing attaches to the JVM and both
//! ways have the same threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jni::objects::{JByteArray, JClass, JMethodID, JObject};
use jni::signature::{Primitive, ReturnType};
use jni::sys::{jint, jlong, jvalue};
use jni::{Env, EnvUnowned, jni_sig, jni_str};
use parking_lot::Mutex;
use quorate_engine::Failure;
use quorate_engine::limits::IN_FLIGHT_MAX;
use quorate_engine::session::{Polled, Queue, Session};

use crate::echo::{Echo, EchoConfig};
use crate::natives::SESSIONS;
use crate::throw::{Fault, Throw};

/// Bytes of completions taken at a time.
const BUFFER_BYTES: usize = 1 << 20;
/// How long one look for completions waits.
const WAIT: Duration = Duration::from_secs(1);
/// Bytes of a completion before its payload: length, type, ticket, status.
const HEAD_BYTES: usize = 14;
/// The type of a completion's record.
const COMPLETION: u8 = 1;

static ECHOES: Mutex<BTreeMap<i64, Arc<Echo>>> = Mutex::new(BTreeMap::new());

/// `static native long open()`: an echo, for `quorate.jni.Native.submit` and `close`, and for `run`.
// SAFETY: the name is what the JVM looks for, and belongs to this library alone; the JVM calls it as declared in Java.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_bench_Upcalls_open<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
) -> jlong {
    env.with_env(|_| -> Result<jlong, Fault> {
        let echo = Echo::start(EchoConfig { name: "upcalls".into(), mirror: false, in_flight: IN_FLIGHT_MAX })?;
        let handle = SESSIONS.insert(echo.clone());
        ECHOES.lock().insert(handle, echo);
        Ok(handle)
    })
    .resolve::<Throw>()
}

/// `static native void run(long handle, Sink sink)`: calls `sink.completed(long, int, byte[])` for each completion until the
/// echo is closed. What the sink throws ends it.
// SAFETY: as for `open`.
#[unsafe(no_mangle)]
pub extern "system" fn Java_quorate_bench_Upcalls_run<'local>(
    mut env: EnvUnowned<'local>,
    _: JClass<'local>,
    handle: jlong,
    sink: JObject<'local>,
) {
    env.with_env(|env| -> Result<(), Fault> {
        let echo = ECHOES.lock().remove(&handle).ok_or_else(|| Failure::invalid("There is no such echo."))?;
        let class = env.get_object_class(&sink)?;
        let method = env.get_method_id(class, jni_str!("completed"), jni_sig!("(JI[B)V"))?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match echo.poll(Queue::Events, &mut buffer, 0, WAIT) {
                Polled::Bytes(bytes) => {
                    if !tell_all(env, &sink, method, &buffer[..bytes])? {
                        return Ok(());
                    }
                }
                Polled::NeedsBytes(bytes) => buffer.resize(bytes, 0),
                Polled::Closed => return Ok(()),
            }
        }
    })
    .resolve::<Throw>()
}

/// Calls the sink for each completion; false after the record that ends the queue.
fn tell_all(env: &mut Env<'_>, sink: &JObject<'_>, method: JMethodID, mut records: &[u8]) -> Result<bool, Fault> {
    while let Some((prefix, rest)) = records.split_first_chunk::<4>() {
        let (record, after) = rest.split_at(u32::from_le_bytes(*prefix) as usize);
        let Some((head, payload)) = record.split_first_chunk::<{ HEAD_BYTES - 4 }>() else { return Ok(false) };
        if head[0] == COMPLETION {
            let mut ticket = [0; 8];
            ticket.copy_from_slice(&head[1..9]);
            tell(env, sink, method, i64::from_le_bytes(ticket), head[9].into(), payload)?;
        }
        records = after;
    }
    Ok(true)
}

fn tell(
    env: &mut Env<'_>,
    sink: &JObject<'_>,
    method: JMethodID,
    ticket: jlong,
    status: jint,
    payload: &[u8],
) -> Result<(), Fault> {
    let payload: JByteArray<'_> = env.byte_array_from_slice(payload)?;
    let arguments = [jvalue { j: ticket }, jvalue { i: status }, jvalue { l: payload.as_raw() }];
    // SAFETY: the method was found in the sink's own class with this signature, and the arguments are of its types.
    unsafe { env.call_method_unchecked(sink, method, ReturnType::Primitive(Primitive::Void), &arguments)? };
    env.delete_local_ref(payload);
    Ok(())
}
