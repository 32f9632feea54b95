//! What can go wrong.

use std::fmt;

/// Code says what kind of failure an error is: gRPC's codes, by gRPC's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The caller went away.
    Canceled = 1,
    /// Nobody classified it.
    Unknown,
    /// The request can never succeed as it is.
    InvalidArgument,
    /// It took too long.
    DeadlineExceeded,
    /// No such thing.
    NotFound,
    /// It is there, and must not be.
    AlreadyExists,
    /// Known, but not granted.
    PermissionDenied,
    /// A limit or quota was hit.
    ResourceExhausted,
    /// Not in the system's present state.
    FailedPrecondition,
    /// A concurrent change won.
    Aborted,
    /// Past the end.
    OutOfRange,
    /// Not done here.
    Unimplemented,
    /// Something is broken.
    Internal,
    /// Try again, later.
    Unavailable,
    /// Stored data is damaged.
    DataLoss,
    /// Not known.
    Unauthenticated,
}

use Code::*;

/// Each code, in words, and the HTTP status that says the same.
const CODES: [(Code, &str, u16); 16] = [
    (Canceled, "canceled", 499),
    (Unknown, "unknown", 500),
    (InvalidArgument, "invalid argument", 400),
    (DeadlineExceeded, "deadline exceeded", 504),
    (NotFound, "not found", 404),
    (AlreadyExists, "already exists", 409),
    (PermissionDenied, "permission denied", 403),
    (ResourceExhausted, "resource exhausted", 429),
    (FailedPrecondition, "failed precondition", 400),
    (Aborted, "aborted", 409),
    (OutOfRange, "out of range", 400),
    (Unimplemented, "unimplemented", 501),
    (Internal, "internal", 500),
    (Unavailable, "unavailable", 503),
    (DataLoss, "data loss", 500),
    (Unauthenticated, "unauthenticated", 401),
];

impl Code {
    pub(super) fn from_number(n: u32) -> Code {
        CODES.iter().map(|c| c.0).find(|&c| c as u32 == n).unwrap_or(Unknown)
    }

    /// The HTTP status that says the same.
    pub fn status(self) -> u16 {
        CODES[self as usize - 1].2
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(CODES[*self as usize - 1].1)
    }
}

/// Error is a failure with a code. Capability calls return it; a handler that returns one chooses its status.
#[derive(Clone, Debug)]
pub struct Error {
    pub code: Code,
    pub message: String,
    /// What to do next, for the person who operates this; may be empty.
    pub hint: String,
    pub(super) dropped: bool,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), hint: String::new(), dropped: false }
    }

    /// From an event's handler: the event can never be handled. It is logged and not delivered again.
    pub fn drop_event(message: impl Into<String>) -> Error {
        Error { dropped: true, ..Error::new(NotFound, message) }
    }

    /// Something is not there.
    pub fn is_not_found(&self) -> bool {
        self.code == NotFound
    }

    /// Somebody else was first: an ETag that no longer matches, or a key that is there already. Read again and decide
    /// anew.
    pub fn is_conflict(&self) -> bool {
        self.code == Aborted || self.code == AlreadyExists
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.message.as_str() {
            "" => self.code.fmt(f),
            m => f.write_str(m),
        }
    }
}

impl std::error::Error for Error {}

/// Result is what handlers and capability calls return.
pub type Result<T> = std::result::Result<T, Error>;
