//! Which handler answers a request.

use std::cmp::Ordering;

use super::{Handler, Request};

/// Routes are held with the more specific ones first, so that the first match is the right one.
#[derive(Default)]
pub struct Routes(Vec<Route>);

struct Route {
    pattern: String,
    method: String, // "": any
    segments: Vec<Segment>,
    handler: Handler,
}

/// Segment is one part of a path between slashes.
struct Segment {
    kind: Kind,
    text: String, // the literal, or a wildcard's name
}

/// In order of precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Literal,
    Wildcard,
    Rest, // takes all that follows
}

/// Match is what became of looking for a handler.
pub enum Match<'a> {
    Found(&'a Handler),
    WrongMethod(String), // those that would do
    Nothing,
}

impl Routes {
    pub const fn new() -> Routes {
        Routes(Vec::new())
    }

    /// Adds a route. It panics on a pattern that is wrong or taken: that is a mistake of the program.
    pub fn add(&mut self, pattern: &str, handler: Handler) {
        let (method, path) = pattern.split_once(' ').unwrap_or(("", pattern));
        assert!(path.starts_with('/'), "loam: handle({pattern}): want a pattern like \"GET /orders/{{id}}\"");
        let parts: Vec<&str> = path[1..].split('/').collect();
        let mut segments = Vec::new();
        for (i, &part) in parts.iter().enumerate() {
            let last = i == parts.len() - 1;
            let mut kind = if part.is_empty() && last { Kind::Rest } else { Kind::Literal };
            let mut text = part;
            if let Some(name) = part.strip_prefix('{') {
                kind = Kind::Wildcard;
                text = name.strip_suffix('}').unwrap_or("");
                if let Some(all) = text.strip_suffix("...").filter(|_| last) {
                    (kind, text) = (Kind::Rest, all);
                }
                assert!(
                    !text.is_empty() && !text.contains(&['{', '}', '.']),
                    "loam: handle({pattern}): a wildcard is {{name}}, or {{name...}} at the end"
                );
            }
            segments.push(Segment { kind, text: text.to_string() });
        }
        let route = Route { pattern: pattern.to_string(), method: method.to_string(), segments, handler };
        match self.0.binary_search_by(|r| r.order(&route)) {
            Ok(i) => panic!("loam: handle({pattern}): {} is registered already and matches the same", self.0[i].pattern),
            Err(i) => self.0.insert(i, route),
        }
    }

    /// Finds r's handler and sets its path values.
    pub fn find(&self, r: &mut Request) -> Match<'_> {
        let mut allow: Vec<&str> = Vec::new();
        for route in &self.0 {
            let values = match route.values(&r.path) {
                Some(v) => v,
                None => continue,
            };
            if route.method.is_empty() || route.method == r.method || route.method == "GET" && r.method == "HEAD" {
                let names = route.segments.iter().filter(|s| s.kind != Kind::Literal).map(|s| s.text.clone());
                r.values = names.zip(values).collect();
                return Match::Found(&route.handler);
            }
            if !allow.contains(&route.method.as_str()) {
                allow.push(&route.method);
            }
        }
        if allow.is_empty() {
            return Match::Nothing;
        }
        Match::WrongMethod(allow.join(", "))
    }
}

impl Route {
    /// Literals before wildcards, longer paths before shorter ones, a method before none. Two routes are equal if they
    /// match the same requests.
    fn order(&self, other: &Route) -> Ordering {
        for (a, b) in self.segments.iter().zip(&other.segments) {
            let mut by = a.kind.cmp(&b.kind);
            if a.kind == Kind::Literal {
                by = by.then_with(|| a.text.cmp(&b.text));
            }
            if by != Ordering::Equal {
                return by;
            }
        }
        other.segments.len().cmp(&self.segments.len()).then_with(|| other.method.cmp(&self.method))
    }

    fn values(&self, path: &str) -> Option<Vec<String>> {
        let mut path = path.strip_prefix('/')?;
        let mut values = Vec::new();
        for (i, s) in self.segments.iter().enumerate() {
            if s.kind == Kind::Rest {
                values.push(unescape(path));
                return Some(values);
            }
            let last = i == self.segments.len() - 1;
            let part = match path.split_once('/') {
                Some((part, rest)) if !last => {
                    path = rest;
                    part
                }
                None if last => path,
                _ => return None,
            };
            let part = unescape(part);
            match s.kind {
                Kind::Literal if part != s.text => return None,
                Kind::Literal => {}
                _ if part.is_empty() => return None,
                _ => values.push(part),
            }
        }
        Some(values)
    }
}

/// Takes percent signs out of a text; one that is malformed stays as it is.
pub fn unescape(s: &str) -> String {
    percent_decode(s).unwrap_or_else(|| s.to_string())
}

/// None where a percent sign has no two digits behind it.
pub fn percent_decode(s: &str) -> Option<String> {
    let mut out = Vec::with_capacity(s.len());
    let mut rest = s.as_bytes();
    while let [c, tail @ ..] = rest {
        rest = tail;
        if *c != b'%' {
            out.push(*c);
            continue;
        }
        let digit = |i: usize| tail.get(i).and_then(|&d| (d as char).to_digit(16));
        out.push((digit(0)? * 16 + digit(1)?) as u8);
        rest = &tail[2..];
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
