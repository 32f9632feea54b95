//! The empty guest in Rust.

#[no_mangle]
pub extern "C" fn loam_serve() {}
