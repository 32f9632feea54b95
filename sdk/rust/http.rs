//! Requests, responses, events.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::{Code, Error, Result};
use super::json::Json;
use super::routes::{percent_decode, unescape};
use super::{api, host};

/// Header is the ordered list of a message's fields. Names compare without regard to case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header(pub Vec<(String, String)>);

impl Header {
    /// The first value of name; "" where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|f| f.0.eq_ignore_ascii_case(name)).map_or("", |f| &f.1)
    }

    /// Every value of name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |f| f.0.eq_ignore_ascii_case(name)).map(|f| f.1.as_str())
    }

    /// Appends a field.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_string(), value.to_string()));
    }

    /// Replaces every field of that name by one.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.retain(|f| !f.0.eq_ignore_ascii_case(name));
        self.add(name, value);
    }

    pub(super) fn from_api(fields: Vec<api::Header>) -> Header {
        Header(fields.into_iter().map(|f| (f.name, f.value)).collect())
    }

    pub(super) fn to_api(&self) -> Vec<api::Header> {
        self.0.iter().map(|f| api::Header { name: f.0.clone(), value: f.1.clone() }).collect()
    }
}

/// Request is what a handler answers.
#[derive(Debug, Default)]
pub struct Request {
    pub method: String,
    /// As the Host header names it.
    pub host: String,
    /// As sent, with its escapes.
    pub path: String,
    /// Without the question mark.
    pub raw_query: String,
    pub header: Header,
    /// Names this request in logs.
    pub id: String,
    /// When the answer is worth nothing any more.
    pub deadline: Option<SystemTime>,

    pub(super) values: Vec<(String, String)>, // of the pattern's wildcards
    length: i64,
    body: RefCell<Option<Result<Vec<u8>>>>,
}

impl Request {
    pub(super) fn from_api(head: api::RequestHead) -> Request {
        let ms = u64::try_from(head.deadline_unix_ms).unwrap_or(0);
        Request {
            method: head.method,
            host: head.authority,
            path: head.path,
            raw_query: head.query,
            header: Header::from_api(head.headers),
            id: head.id,
            deadline: if ms == 0 { None } else { Some(UNIX_EPOCH + Duration::from_millis(ms)) },
            length: head.length,
            ..Request::default()
        }
    }

    /// What the wildcard called name matched, unescaped; "" where the pattern has none of that name.
    pub fn path_value(&self, name: &str) -> &str {
        self.values.iter().find(|v| v.0 == name).map_or("", |v| &v.1)
    }

    /// The first value of name in the query, unescaped.
    pub fn query(&self, name: &str) -> Option<String> {
        self.raw_query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plain = |s: &str| percent_decode(&s.replace('+', " "));
            if plain(key)? == name { plain(value) } else { None }
        })
    }

    /// The whole body. It is read once; later calls return the same bytes.
    pub fn body(&self) -> Result<Vec<u8>> {
        self.body.borrow_mut().get_or_insert_with(|| host::body(self.length)).clone()
    }

    /// The body as JSON. What is none is InvalidArgument: returned, it answers 400.
    pub fn json(&self) -> Result<Json> {
        Json::parse(&self.body()?)
            .ok_or_else(|| Error::new(Code::InvalidArgument, "the request's body is not the JSON expected"))
    }

    /// The request as a CloudEvent in binary mode; None where it is none.
    pub fn event(&self) -> Option<Event> {
        if self.header.get("ce-specversion").is_empty() {
            return None;
        }
        let mut e = Event {
            content_type: self.header.get("content-type").to_string(),
            data: self.body().ok()?,
            ..Event::default()
        };
        for (name, value) in &self.header.0 {
            let name = name.to_ascii_lowercase();
            // What a header cannot hold comes by percent signs (CloudEvents 1.0, HTTP binding, section 3.1.3.2).
            let value = unescape(value);
            match name.strip_prefix("ce-") {
                None | Some("specversion") => {}
                Some("id") => e.id = value,
                Some("source") => e.source = value,
                Some("type") => e.r#type = value,
                Some("subject") => e.subject = value,
                Some("topic") => e.topic = value,
                Some("time") => e.time = value,
                Some(extension) => e.attributes.push((extension.to_string(), value)),
            }
        }
        Some(e)
    }
}

/// Response is a handler's answer, and what another function or a host answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// HTTP status; 0 counts as 200.
    pub status: u16,
    pub header: Header,
    pub body: Vec<u8>,
}

impl Response {
    /// A body of that type.
    pub fn bytes(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        let mut header = Header::default();
        header.add("Content-Type", content_type);
        Response { status, header, body: body.into() }
    }

    /// Plain text.
    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response::bytes(status, "text/plain; charset=utf-8", body)
    }

    /// A page.
    pub fn html(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response::bytes(status, "text/html; charset=utf-8", body)
    }

    /// A value as JSON.
    pub fn json(status: u16, value: &Json) -> Response {
        Response::bytes(status, "application/json", format!("{value}\n"))
    }

    /// 204, with no body.
    pub fn no_content() -> Response {
        Response { status: 204, ..Response::default() }
    }

    /// Tells of an error: {"code": "not found", "message": "…"}.
    pub(super) fn failure(code: Code, message: &str) -> Response {
        let mut fields = vec![("code".to_string(), Json::from(code.to_string()))];
        if !message.is_empty() {
            fields.push(("message".to_string(), Json::from(message)));
        }
        Response::json(code.status(), &Json::Object(fields))
    }
}

/// Outgoing is a request that a function makes: invoke(name, path, Outgoing::default()).
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Empty: GET, with a body POST.
    pub method: String,
    pub header: Header,
    pub body: Vec<u8>,
    /// None: as long as the function itself has.
    pub timeout: Option<Duration>,
}

/// Event is one message of a topic, with the attributes of CloudEvents 1.0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// Unique within source; the same for every delivery of the event.
    pub id: String,
    /// Who published it.
    pub source: String,
    /// What kind of thing happened.
    pub r#type: String,
    /// What it happened to; may be empty.
    pub subject: String,
    pub topic: String,
    /// RFC 3339.
    pub time: String,
    /// Of data.
    pub content_type: String,
    pub data: Vec<u8>,
    /// Extensions.
    pub attributes: Vec<(String, String)>,
}

impl Event {
    /// The data as JSON.
    pub fn json(&self) -> Result<Json> {
        Json::parse(&self.data)
            .ok_or_else(|| Error::new(Code::InvalidArgument, format!("event {:?} is not the JSON expected", self.id)))
    }
}
