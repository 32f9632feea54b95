//! The guest's side of the loam ABI: raw calls, and the buffers they need.

use super::api;
use super::error::{Code, Error, Result};
use super::wire::Message;

#[link(wasm_import_module = "loam")]
extern "C" {
    fn request_head(ptr: *mut u8, size: usize) -> usize;
    fn request_body(ptr: *mut u8, size: usize) -> isize;
    fn response_head(ptr: *const u8, size: usize);
    fn response_body(ptr: *const u8, size: usize) -> i32;
    fn call(
        method: *const u8,
        method_len: usize,
        input: *const u8,
        input_len: usize,
        output: *mut u8,
        output_size: usize,
    ) -> u64;
    fn result(ptr: *mut u8, size: usize) -> isize;
}

/// The size a buffer has at first: most answers fit.
const GUESS: usize = 4 << 10;

/// The request that is being served.
pub fn head() -> api::RequestHead {
    let mut b = vec![0; GUESS];
    let n = unsafe { request_head(b.as_mut_ptr(), b.len()) };
    if n > b.len() {
        b.resize(n, 0);
        unsafe { request_head(b.as_mut_ptr(), b.len()) };
    }
    b.truncate(n);
    api::RequestHead::decode(&b).expect("loam: the host's request is not readable")
}

/// The whole body; length is what was announced, -1 where nobody knows.
pub fn body(length: i64) -> Result<Vec<u8>> {
    if length == 0 {
        return Ok(Vec::new());
    }
    // One byte more than announced, so that the end is seen without growing.
    let mut b = vec![0; if length < 0 { GUESS } else { (length + 1).min(1 << 20) as usize }];
    let mut have = 0;
    loop {
        if have == b.len() {
            b.resize(2 * have, 0);
        }
        match unsafe { request_body(b[have..].as_mut_ptr(), b.len() - have) } {
            0 => break,
            n if n < 0 => {
                return Err(Error::new(
                    Code::InvalidArgument,
                    "the request's body could not be read to its end, or is too large",
                ))
            }
            n => have += n as usize,
        }
    }
    b.truncate(have);
    Ok(b)
}

/// Answers the request.
pub fn respond(head: &api::ResponseHead, body: &[u8]) {
    let mut b = Vec::new();
    head.encode(&mut b);
    unsafe {
        response_head(b.as_ptr(), b.len());
        if !body.is_empty() {
            response_body(body.as_ptr(), body.len()); // where nobody reads any more there is nobody to tell either
        }
    }
}

/// Makes one capability call.
pub fn invoke<M: Message>(method: &str, request: &impl Message) -> Result<M> {
    let mut input = Vec::new();
    request.encode(&mut input);
    let mut output = vec![0; GUESS];
    let packed = unsafe {
        call(method.as_ptr(), method.len(), input.as_ptr(), input.len(), output.as_mut_ptr(), output.len())
    };
    let (code, n) = ((packed >> 32) as u32, packed as u32 as usize);
    if n > output.len() {
        output.resize(n, 0);
        unsafe { result(output.as_mut_ptr(), n) };
    }
    output.truncate(n);
    if code != 0 {
        let e = api::Error::decode(&output).unwrap_or_default(); // the code alone says enough
        let message = if e.message.is_empty() { format!("{method} failed") } else { e.message };
        return Err(Error { hint: e.hint, ..Error::new(Code::from_number(code), message) });
    }
    M::decode(&output).map_err(|_| Error::new(Code::Internal, format!("{method}: the answer is not readable")))
}
