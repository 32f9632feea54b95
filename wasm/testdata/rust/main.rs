//! A function whose start makes a hash map, for the test that forks get keys of their own for new ones.

use std::collections::hash_map::RandomState;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

static mut KEPT: Option<HashMap<u32, u32>> = None;

#[link(wasm_import_module = "loam")]
extern "C" {
    fn response_body(ptr: *const u8, len: usize) -> i32;
}

#[no_mangle]
pub extern "C" fn loam_start() {
    let mut map = HashMap::new();
    map.insert(7, 8);
    unsafe { KEPT = Some(map) }
}

/// Answers with what a new hasher makes of nothing, and with what the map holds that the start made.
#[no_mangle]
pub extern "C" fn loam_serve() {
    let hash = RandomState::new().build_hasher().finish();
    let kept = unsafe { &*std::ptr::addr_of!(KEPT) }.as_ref().and_then(|map| map.get(&7)).copied();
    let answer = format!("{} {:?}", hash, kept);
    unsafe { response_body(answer.as_ptr(), answer.len()) };
}
