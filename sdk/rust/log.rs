//! Log lines: each becomes one of Loam's, with the function and the request it belongs to.

use std::io::Write;

use super::json::Json;

/// For who looks for a mistake.
pub fn debug(message: &str, attributes: &[(&str, &str)]) {
    line("DEBUG", message, attributes);
}

/// For who wants to know what happened.
pub fn info(message: &str, attributes: &[(&str, &str)]) {
    line("INFO", message, attributes);
}

/// Something to look at some day.
pub fn warn(message: &str, attributes: &[(&str, &str)]) {
    line("WARN", message, attributes);
}

/// Something to mend.
pub fn error(message: &str, attributes: &[(&str, &str)]) {
    line("ERROR", message, attributes);
}

fn line(level: &str, message: &str, attributes: &[(&str, &str)]) {
    let mut fields = vec![("level".to_string(), Json::from(level)), ("msg".to_string(), Json::from(message))];
    fields.extend(attributes.iter().map(|&(k, v)| (k.to_string(), Json::from(v))));
    let text = format!("{}\n", Json::Object(fields));
    let _ = std::io::stderr().write_all(text.as_bytes()); // a line that cannot be logged has nowhere to be told
}
