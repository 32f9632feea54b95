//! How a Rust function talks to Loam: it registers handlers for the requests and events that reach it, and calls the
//! capabilities it was granted. A function is a main.rs that takes this file as a module and has an init, which
//! registers:
//!
//! ```ignore
//! #[path = "sdk/loam.rs"]
//! mod loam;
//!
//! use loam::{Request, Response, Result};
//!
//! fn init() {
//!     loam::handle("GET /hello/{name}", hello);
//! }
//!
//! fn hello(r: &Request) -> Result<Response> {
//!     Ok(Response::text(200, format!("Hello, {}!\n", r.path_value("name"))))
//! }
//! ```
//!
//! loam build makes the module, with rustc alone: rustc --edition 2021 --crate-type cdylib --target wasm32-wasi main.rs.
//! Time, randomness and the environment are the standard library's. init runs once, long before the first request and
//! for all of them: what it keeps must be the same for everyone. A panic ends the request with status 500.

#![allow(dead_code, unused_imports)] // a function uses what it needs
#![allow(clippy::needless_lifetimes)]

mod api;
mod calls;
mod crypto;
mod error;
mod file;
mod host;
mod http;
mod jobs;
mod json;
pub mod log;
mod pubsub;
mod routes;
mod state;
mod wire;

pub use calls::{
    bind, config, fetch, invoke, lock, secret, sequence, ConfigItem, ConfigStore, LockStore, SequenceStore,
};
pub use crypto::{crypto, Cipher, CryptoStore};
pub use error::{Code, Error, Result};
pub use file::{file, FileInfo, FileList, FileQuery, FileStore};
pub use http::{Event, Header, Outgoing, Request, Response};
pub use jobs::{jobs, Job, JobStore};
pub use json::Json;
pub use pubsub::{publish, NewEvent};
pub use state::{state, If, Item, StateStore, Tx};

use std::sync::Mutex;
use std::time::Duration;

type Handler = Box<dyn Fn(&Request) -> Result<Response> + Send>;

static ROUTES: Mutex<routes::Routes> = Mutex::new(routes::Routes::new());

/// Registers a handler for a pattern: an optional method, then a path whose segments may be {name}, and whose last one
/// may be {name...} for all that follows. A path that ends in a slash takes everything below it. The more specific
/// pattern wins, whatever the order. It is called from init, and panics on a pattern that is wrong or taken.
///
/// An error the handler returns becomes the status that fits its code, and is logged.
pub fn handle(pattern: &str, handler: impl Fn(&Request) -> Result<Response> + Send + 'static) {
    ROUTES.lock().unwrap().add(pattern, Box::new(handler));
}

/// Registers a handler for the events that a subscription routes to path. With Ok the event is done; with an error it
/// is delivered again later, unless that is Error::drop_event. Events may come more than once: their id tells.
pub fn handle_event(path: &str, handler: impl Fn(&Request, Event) -> Result<()> + Send + 'static) {
    handle(&format!("POST {path}"), move |r| {
        let event = r.event().ok_or_else(|| {
            Error::new(Code::InvalidArgument, "no event: CloudEvents headers are missing")
        })?;
        done(handler(r, event))
    });
}

/// Registers a handler for the function's own jobs of a name, which may be a pattern: report, mail/{id}, {name...} for all
/// that no other handler is for. With Ok the run is done; with an error it is tried again as the job says, unless that is
/// Error::drop_event. A run may come more than once.
pub fn handle_job(name: &str, handler: impl Fn(&Request, Vec<u8>) -> Result<()> + Send + 'static) {
    handle(&format!("POST /job/{name}"), move |r| {
        let data = r.body()?;
        done(handler(r, data))
    });
}

fn done(result: Result<()>) -> Result<Response> {
    match result {
        Ok(()) => Ok(Response::no_content()),
        // Something else was not there; 404 would drop what came.
        Err(e) if e.is_not_found() && !e.dropped => Err(Error { code: Code::Internal, ..e }),
        Err(e) => Err(e),
    }
}

fn answer(request: &mut Request) -> Response {
    let routes = ROUTES.lock().unwrap();
    let result = match routes.find(request) {
        routes::Match::Found(handler) => handler(request),
        routes::Match::Nothing => {
            return Response::failure(Code::NotFound, &format!("nothing answers {}", request.path))
        }
        routes::Match::WrongMethod(allow) => {
            let mut r = Response::failure(Code::Unimplemented, &format!("{} is not among {allow}", request.method));
            r.status = 405;
            r.header.set("Allow", &allow);
            return r;
        }
    };
    result.unwrap_or_else(|e| {
        let broken = e.code.status() >= 500;
        let line = if broken { log::error } else { log::warn };
        let (code, message) = (e.code.to_string(), e.to_string());
        line(
            "request failed",
            &[("method", &request.method), ("path", &request.path), ("code", &code), ("error", &message)],
        );
        // What broke inside is not the caller's to read.
        Response::failure(e.code, if broken { "" } else { &message })
    })
}

/// milliseconds rounds up: a lease that was asked for is never nothing.
fn milliseconds(d: Duration) -> i64 {
    d.as_nanos().saturating_add(999_999).checked_div(1_000_000).and_then(|ms| i64::try_from(ms).ok()).unwrap_or(i64::MAX)
}

extern "C" {
    fn __wasm_call_ctors(); // the linker's: what the C library wants done first
}

/// The host calls it once, before everything else.
#[no_mangle]
extern "C" fn _initialize() {
    unsafe { __wasm_call_ctors() };
    super::init();
}

/// The host calls it for each request.
#[no_mangle]
extern "C" fn loam_serve() {
    let mut request = Request::from_api(host::head());
    let response = answer(&mut request);
    let head = api::ResponseHead { status: response.status.into(), headers: response.header.to_api() };
    host::respond(&head, &response.body);
}
