// A CGI program in Rust, by its standard library alone.
use std::io::Read;

fn main() {
    let mut body = String::new();
    if std::io::stdin().read_to_string(&mut body).is_err() {
        eprintln!("the body is not UTF-8");
        std::process::exit(1);
    }
    print!("Content-Type: text/plain\n\n{} {}", std::env::var("REQUEST_METHOD").unwrap(), body.chars().rev().collect::<String>());
}
