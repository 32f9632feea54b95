mod api;
mod wire;

use std::io::BufRead;
use wire::Message;

fn echo<M: Message>(b: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    M::decode(b).ok()?.encode(&mut out);
    Some(out)
}

fn by_name(name: &str, b: &[u8]) -> Option<Vec<u8>> {
    match name {
TABLE        _ => panic!("no message {}", name),
    }
}

fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let (name, text) = line.split_once(':').unwrap();
        let b: Vec<u8> = (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect();
        match by_name(name, &b) {
            Some(out) => println!("{}", out.iter().map(|c| format!("{:02x}", c)).collect::<String>()),
            None => println!("error"),
        }
    }
}
