//! The memory of a direct `java.nio.ByteBuffer`, held for as long as polls may write to it.

use jni::objects::{Global, JByteBuffer};
use jni::{Env, jni_sig, jni_str};
use quorate_engine::Failure;

use crate::throw::Fault;

/// A direct buffer's memory. A global reference keeps the buffer, hence the memory, until this is dropped, which happens
/// on one of Java's threads: in the native that replaces the buffer or takes the queue's end.
#[derive(Debug)]
pub struct DirectBuffer {
    address: *mut u8,
    capacity: usize,
    _keeps_alive: Global<JByteBuffer<'static>>,
}

// SAFETY: the memory belongs to no thread, and the global reference may be used on any; the table hands this out to one
// thread at a time, under a lock.
unsafe impl Send for DirectBuffer {}

impl DirectBuffer {
    /// Takes the address of `buffer`, once. Fails with `Invalid` when it is null, not direct, or read-only.
    pub fn new(env: &mut Env<'_>, buffer: &JByteBuffer<'_>) -> Result<DirectBuffer, Fault> {
        if buffer.is_null() {
            return Err(Failure::invalid("The buffer is null.").into());
        }
        if !env.call_method(buffer, jni_str!("isDirect"), jni_sig!("()Z"), &[])?.z()? {
            return Err(Failure::invalid("The buffer is not direct; use ByteBuffer.allocateDirect.").into());
        }
        if env.call_method(buffer, jni_str!("isReadOnly"), jni_sig!("()Z"), &[])?.z()? {
            return Err(Failure::invalid("The buffer is read-only.").into());
        }
        let capacity = env.get_direct_buffer_capacity(buffer)?;
        if capacity == 0 {
            return Err(Failure::invalid("The buffer is empty.").into());
        }
        let address = env.get_direct_buffer_address(buffer)?;
        let keeps_alive = env.new_global_ref(buffer)?;
        Ok(DirectBuffer { address, capacity, _keeps_alive: keeps_alive })
    }
}

impl AsMut<[u8]> for DirectBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: the JVM gave address and capacity of memory that it zeroed and that lives as long as the buffer, which
        // the global reference keeps. `quorate.jni.Native.poll` is documented to be the only one that touches it while
        // it runs, and the table lets one poll a queue run at a time.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.capacity) }
    }
}
