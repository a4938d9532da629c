//! Little-endian building blocks for the engine's own binary formats (batches, operations, records).
//!
//! Reading never panics and never allocates what the input merely claims: a length is checked against what is left.

use bytes::{Buf, BufMut, Bytes};

use crate::error::{Code, Failure};

/// Appends `data` as a `u32` length in bytes and the bytes themselves.
pub fn put_bytes(out: &mut Vec<u8>, data: &[u8]) {
    out.put_u32_le(data.len() as u32);
    out.put_slice(data);
}

/// A checked reader over shared bytes; slices that it returns share the buffer.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Reads from the start of `data`.
    pub fn new(data: Bytes) -> Reader {
        Reader { rest: data }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn need(&self, bytes: usize) -> Result<(), Failure> {
        if self.rest.len() < bytes {
            return Err(Failure::new(Code::Corrupt, format!("{bytes} bytes expected, {} left.", self.rest.len())));
        }
        Ok(())
    }

    /// The next byte. Fails at the end.
    pub fn u8(&mut self) -> Result<u8, Failure> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    /// The next `u16`. Fails when fewer than two bytes are left.
    pub fn u16(&mut self) -> Result<u16, Failure> {
        self.need(2)?;
        Ok(self.rest.get_u16_le())
    }

    /// The next `u32`. Fails when fewer than four bytes are left.
    pub fn u32(&mut self) -> Result<u32, Failure> {
        self.need(4)?;
        Ok(self.rest.get_u32_le())
    }

    /// The next `u64`. Fails when fewer than eight bytes are left.
    pub fn u64(&mut self) -> Result<u64, Failure> {
        self.need(8)?;
        Ok(self.rest.get_u64_le())
    }

    /// The next length-prefixed bytes (see [`put_bytes`]). Fails when the length is more than what is left.
    pub fn bytes(&mut self) -> Result<Bytes, Failure> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    /// The next `len` bytes, without a prefix. Fails when fewer are left.
    pub fn take(&mut self, len: usize) -> Result<Bytes, Failure> {
        self.need(len)?;
        Ok(self.rest.split_to(len))
    }

    /// Length-prefixed UTF-8 text. Fails when it is not UTF-8.
    pub fn text(&mut self) -> Result<String, Failure> {
        let data = self.bytes()?;
        String::from_utf8(data.to_vec()).map_err(|_| Failure::new(Code::Corrupt, "Text that is not UTF-8."))
    }

    /// Fails unless everything was read.
    pub fn end(&self) -> Result<(), Failure> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Code::Corrupt, format!("{} bytes too many.", self.rest.len())))
    }
}
