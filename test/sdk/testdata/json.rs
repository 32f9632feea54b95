//! Reads lines that are JSON, each in hexadecimal, and writes what the SDK made of them.

#[path = "../../../sdk/rust/json.rs"]
mod json;

use std::io::BufRead;

fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let text: Vec<u8> = (0..line.len() / 2).map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap()).collect();
        match json::Json::parse(&text) {
            Some(value) => println!("{value}"),
            None => println!("error"),
        }
    }
}
