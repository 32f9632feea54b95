//! Just enough JSON for events and bodies, for who has no crate for it.

use std::fmt::{self, Write};

/// Json is one value. Its Display is JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    /// A whole number that an i64 holds.
    Int(i64),
    /// Every other number.
    Float(f64),
    String(String),
    Array(Vec<Json>),
    /// Fields in the order they stand.
    Object(Vec<(String, Json)>),
}

/// How deep arrays and objects may stand in each other: the parser's stack is the guest's.
const MAX_DEPTH: usize = 64;

impl Json {
    /// Reads one value, and nothing behind it. None: it is no JSON, or too deep.
    pub fn parse(text: &[u8]) -> Option<Json> {
        let mut p = Parser { rest: std::str::from_utf8(text).ok()?, depth: 0 };
        let value = p.value()?;
        p.space();
        if p.rest.is_empty() { Some(value) } else { None }
    }

    /// An object of those fields.
    pub fn object<const N: usize>(fields: [(&str, Json); N]) -> Json {
        Json::Object(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
    }

    /// The object's field of that name; of two, the last. Null where there is none.
    pub fn get(&self, name: &str) -> &Json {
        match self {
            Json::Object(fields) => fields.iter().rev().find(|f| f.0 == name).map_or(&Json::Null, |f| &f.1),
            _ => &Json::Null,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        if let Json::Int(n) = self { Some(*n) } else { None }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Json::String(s) = self { Some(s) } else { None }
    }
}

impl From<&str> for Json {
    fn from(s: &str) -> Json {
        Json::String(s.to_string())
    }
}

impl From<String> for Json {
    fn from(s: String) -> Json {
        Json::String(s)
    }
}

impl From<i64> for Json {
    fn from(n: i64) -> Json {
        Json::Int(n)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(b) => write!(f, "{b}"),
            Json::Int(n) => write!(f, "{n}"),
            Json::Float(n) if n.is_finite() => write!(f, "{n:?}"),
            Json::Float(_) => f.write_str("null"),
            Json::String(s) => quote(f, s),
            Json::Array(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { "," } else { "" })?;
                }
                f.write_char(']')
            }
            Json::Object(fields) => {
                f.write_char('{')?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    f.write_str(if i > 0 { "," } else { "" })?;
                    quote(f, name)?;
                    write!(f, ":{value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

fn quote(f: &mut fmt::Formatter, s: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in s.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c < ' ' => write!(f, "\\u{:04x}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches(&[' ', '\t', '\n', '\r']);
    }

    /// Takes a token if it is next.
    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn value(&mut self) -> Option<Json> {
        self.space();
        match self.rest.as_bytes().first()? {
            b'n' => self.take("null").map(|_| Json::Null),
            b't' => self.take("true").map(|_| Json::Bool(true)),
            b'f' => self.take("false").map(|_| Json::Bool(false)),
            b'"' => self.string().map(Json::String),
            b'[' => self.list('[', ']', Parser::value).map(Json::Array),
            b'{' => self.list('{', '}', Parser::field).map(Json::Object),
            _ => self.number(),
        }
    }

    fn list<T>(&mut self, open: char, close: char, item: fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.rest = self.rest.strip_prefix(open)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let mut items = Vec::new();
        loop {
            self.space();
            if let Some(rest) = self.rest.strip_prefix(close).filter(|_| items.is_empty()) {
                self.rest = rest;
                break;
            }
            items.push(item(self)?);
            self.space();
            if let Some(rest) = self.rest.strip_prefix(close) {
                self.rest = rest;
                break;
            }
            self.take(",")?;
        }
        self.depth -= 1;
        Some(items)
    }

    fn field(&mut self) -> Option<(String, Json)> {
        let name = self.string()?;
        self.space();
        self.take(":")?;
        Some((name, self.value()?))
    }

    /// -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][-+]?[0-9]+)?
    fn number(&mut self) -> Option<Json> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|c| c.is_ascii_digit());
        let (mantissa, exponent) = text.split_once(&['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let whole = whole.strip_prefix('-').unwrap_or(whole);
        let exponent = exponent.strip_prefix(&['-', '+']).unwrap_or(exponent);
        if !digits(whole) || whole.len() > 1 && whole.starts_with('0') || !digits(fraction) || !digits(exponent) {
            return None;
        }
        self.rest = rest;
        if let Ok(n) = text.parse() {
            return Some(Json::Int(n));
        }
        text.parse().ok().filter(|n: &f64| n.is_finite()).map(Json::Float)
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut out = String::new();
        loop {
            let end = self.rest.find(|c| c == '"' || c == '\\' || c < ' ')?;
            out.push_str(&self.rest[..end]);
            let what = self.rest.as_bytes()[end];
            self.rest = &self.rest[end + 1..];
            match what {
                b'"' => return Some(out),
                b'\\' => out.push(self.escaped()?),
                _ => return None,
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(match c {
            '"' | '\\' | '/' => c,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => match self.hex()? {
                high @ 0xd800..=0xdbff => {
                    let behind = self.rest;
                    match self.take("\\u").and_then(|_| self.hex()) {
                        Some(low @ 0xdc00..=0xdfff) => char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?,
                        _ => {
                            self.rest = behind;
                            char::REPLACEMENT_CHARACTER
                        }
                    }
                }
                unit => char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER),
            },
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4).filter(|d| d.bytes().all(|c| c.is_ascii_hexdigit()))?;
        self.rest = &self.rest[4..];
        u32::from_str_radix(digits, 16).ok()
    }
}
