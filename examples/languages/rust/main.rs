//! The function of this example in Rust: it calls everything that there is to call. Its twins in the other folders do
//! the same, line by line.

#[path = "../../../sdk/rust/loam.rs"]
mod loam;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, SystemTime};

use loam::{Cipher, Code, Error, Event, FileQuery, If, Job, NewEvent, Outgoing, Request, Response, Result};

fn init() {
    loam::handle("GET /hello/{name}", hello);
    loam::handle("GET /visits", visits);
    loam::handle("PUT /notes/{id}", put_note);
    loam::handle("GET /notes/{id}", get_note);
    loam::handle("DELETE /notes/{id}", delete_note);
    loam::handle_event("/events/notes", noted);
    loam::handle("POST /announce/{topic}", announce);
    loam::handle("POST /locks/{name}/{owner}", take_lock);
    loam::handle("PUT /locks/{name}/{owner}", renew_lock);
    loam::handle("DELETE /locks/{name}/{owner}", free_lock);
    loam::handle("POST /tickets/{count}", tickets);
    loam::handle("GET /settings", settings);
    loam::handle("GET /secrets/{name}", secret);
    loam::handle("POST /ask/{target}/{path...}", ask);
    loam::handle("GET /fetch", fetch);
    loam::handle("PUT /files/{name...}", put_file);
    loam::handle("POST /files/{name...}", append_file);
    loam::handle("GET /files/{name...}", get_file);
    loam::handle("DELETE /files/{name...}", delete_file);
    loam::handle("GET /folder", folder);
    loam::handle("POST /seal/{key}", seal);
    loam::handle("POST /cipher/{key}", encrypt);
    loam::handle("POST /sign/{key}", sign);
    loam::handle("GET /keys/{key}", public_key);
    loam::handle("POST /bind/{operation}", bind);
    loam::handle("POST /jobs/{name}", schedule);
    loam::handle("GET /jobs/{name}", get_job);
    loam::handle("DELETE /jobs/{name}", delete_job);
    loam::handle_job("{name}", work);
    loam::handle("POST /tick", tick);
    loam::handle("/echo/", echo);
    loam::handle("GET /random", random);
    loam::handle("GET /broken", |_| Err(Error::new(Code::Unknown, "this stays in the log")));
    loam::handle("GET /crash", |_| panic!("this too"));
}

/// Counts how often it greeted whom. Two requests that greet the same name both read its ETag; the slower one looks
/// again.
fn hello(r: &Request) -> Result<Response> {
    let name = r.path_value("name");
    let key = format!("visits/{name}");
    let greeting = match r.query("greeting") {
        Some(g) => g,
        None => loam::config("").get("greeting")?,
    };
    loop {
        let item = loam::state("").get_many(&[&key])?.remove(0);
        let n = String::from_utf8_lossy(&item.value).parse().unwrap_or(0) + 1; // none yet is 0
        match loam::state("").put(&key, n.to_string(), If::Match(item.etag)) {
            Err(e) if e.is_conflict() => continue,
            result => result?,
        };
        loam::log::info("greeted", &[("name", name)]);
        return Ok(Response::text(200, format!("{greeting}, {name}! Visit {n}.\n")));
    }
}

fn visits(_: &Request) -> Result<Response> {
    let mut page = String::new();
    for it in loam::state("").list("visits/", "", 10)? {
        page += &format!("{}: {}\n", it.key.trim_start_matches("visits/"), String::from_utf8_lossy(&it.value));
    }
    Ok(Response::html(200, page))
}

/// Stores a note and says so, both or neither; a note is written once.
fn put_note(r: &Request) -> Result<Response> {
    let id = r.path_value("id");
    let body = r.body()?;
    if body.is_empty() {
        return Err(Error::new(Code::InvalidArgument, "a note says something, even <this> \"one\""));
    }
    let mut event = NewEvent::bytes("notes", "application/octet-stream", body.clone());
    event.subject = id.to_string();
    event.attributes.push(("size".to_string(), body.len().to_string()));
    let mut tx = loam::state("").begin();
    tx.put(&format!("notes/{id}"), body, If::Absent).ttl(Duration::from_secs(3600)).publish(event);
    tx.commit()?;
    let mut response = Response::text(201, "");
    response.header.set("Location", &format!("/notes/{id}"));
    Ok(response)
}

fn get_note(r: &Request) -> Result<Response> {
    let item = loam::state("").get(&format!("notes/{}", r.path_value("id")))?;
    Ok(Response::bytes(200, "application/octet-stream", item.value))
}

fn delete_note(r: &Request) -> Result<Response> {
    loam::state("").delete(&format!("notes/{}", r.path_value("id")), If::Any)?;
    Ok(Response::no_content())
}

/// Remembers what it was told. What no one will ever read is dropped; for some it has no time yet.
fn noted(_: &Request, e: Event) -> Result<()> {
    match e.data.as_slice() {
        b"nonsense" => return Err(Error::drop_event("it is nonsense")),
        b"later" => return Err(Error::new(Code::Unavailable, "not now")),
        b"missing" => return loam::state("").get("notes/missing").map(|_| ()),
        _ => {}
    }
    let size = e.attributes.iter().find(|a| a.0 == "size").map_or("", |a| &a.1);
    let line = format!("{} {} {} {} {} {size} {}", e.r#type, e.source, e.topic, e.subject, e.content_type, e.data.len());
    loam::state("").put(&format!("seen/{}", e.id), line, If::Any)?;
    Ok(())
}

fn announce(r: &Request) -> Result<Response> {
    let mut event = NewEvent::text(r.path_value("topic"), &String::from_utf8_lossy(&r.body()?));
    event.id = "one".to_string();
    event.r#type = "Announced".to_string();
    loam::publish(event)?;
    Ok(Response::no_content())
}

fn take_lock(r: &Request) -> Result<Response> {
    if !loam::lock("").try_lock(r.path_value("name"), r.path_value("owner"), Duration::from_secs(60))? {
        return Err(Error::new(Code::FailedPrecondition, "another holds it"));
    }
    Ok(Response::text(200, "yours\n"))
}

fn renew_lock(r: &Request) -> Result<Response> {
    loam::lock("").renew(r.path_value("name"), r.path_value("owner"), Duration::from_secs(60))?;
    Ok(Response::no_content())
}

fn free_lock(r: &Request) -> Result<Response> {
    loam::lock("").unlock(r.path_value("name"), r.path_value("owner"))?;
    Ok(Response::no_content())
}

fn tickets(r: &Request) -> Result<Response> {
    let count = r.path_value("count").parse().map_err(|_| Error::new(Code::InvalidArgument, "how many?"))?;
    let first = loam::sequence("").next_n("tickets", count)?;
    Ok(Response::text(200, format!("{first}\n")))
}

fn settings(_: &Request) -> Result<Response> {
    let mut list = String::new();
    for it in loam::config("").get_many(&[])? {
        list += &format!("{}={}\n", it.key, it.value);
    }
    Ok(Response::text(200, list))
}

/// Tells how long a secret is, and never what.
fn secret(r: &Request) -> Result<Response> {
    let value = loam::secret("", r.path_value("name"))?;
    Ok(Response::text(200, format!("{} bytes\n", value.len())))
}

/// Hands a request on to another function.
fn ask(r: &Request) -> Result<Response> {
    let mut request = Outgoing { body: r.body()?, timeout: Some(Duration::from_secs(1)), ..Outgoing::default() };
    request.header.add("X-Asked-By", &r.id);
    let path = format!("/{}?{}", r.path_value("path"), r.raw_query);
    let answer = loam::invoke(r.path_value("target"), &path, request)?;
    Ok(Response::bytes(answer.status, answer.header.get("content-type"), answer.body))
}

fn fetch(r: &Request) -> Result<Response> {
    let answer = loam::fetch(&r.query("url").unwrap_or_default(), Outgoing::default())?;
    Ok(Response::text(200, format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))))
}

fn put_file(r: &Request) -> Result<Response> {
    let body = r.body()?;
    let etag = loam::file("").put(r.path_value("name"), r.header.get("content-type"), &[("By", "tour")], body)?;
    Ok(Response::text(201, format!("{etag}\n")))
}

/// Adds to the end of a file, wherever that is.
fn append_file(r: &Request) -> Result<Response> {
    let name = r.path_value("name");
    let body = r.body()?;
    let end = match loam::file("").stat(name) {
        Ok(info) => info.size,
        Err(e) if e.is_not_found() => 0,
        Err(e) => return Err(e),
    };
    let end = loam::file("").append(name, end, body)?;
    Ok(Response::text(200, format!("{end} bytes\n")))
}

fn get_file(r: &Request) -> Result<Response> {
    let number = |name| r.query(name).and_then(|n| n.parse().ok()).unwrap_or(0); // from its begin where nothing is said
    let (data, info) = loam::file("").get_range(r.path_value("name"), number("from"), number("length"))?;
    let by = info.metadata.iter().find(|m| m.0 == "by").map_or("", |m| &m.1);
    let mut response = Response::bytes(200, &info.content_type, data);
    response.header.add("X-File", &format!("{} {} by {by}", info.size, info.etag));
    Ok(response)
}

fn delete_file(r: &Request) -> Result<Response> {
    loam::file("").delete(r.path_value("name"))?;
    Ok(Response::no_content())
}

fn folder(r: &Request) -> Result<Response> {
    let (prefix, after) = (r.query("prefix").unwrap_or_default(), r.query("after").unwrap_or_default());
    let list = loam::file("").list(FileQuery { prefix, delimiter: "/".to_string(), after, limit: 2 })?;
    let mut page = String::new();
    for p in list.prefixes {
        page += &format!("{p}\n");
    }
    for f in list.files {
        page += &format!("{}: {}\n", f.name, f.size);
    }
    page += &format!("next: {}\n", list.next);
    Ok(Response::text(200, page))
}

/// Encrypts what it is sent, and answers what opens again; with ?broken=yes it is changed on the way.
fn seal(r: &Request) -> Result<Response> {
    let mut sealed = loam::crypto("").seal(r.path_value("key"), "AES", r.body()?)?;
    if r.query("broken").map_or(false, |b| !b.is_empty()) {
        *sealed.last_mut().unwrap() ^= 1;
    }
    Ok(Response::bytes(200, "application/octet-stream", loam::crypto("").open("", sealed)?))
}

/// Does the single operations with a key, there and back. Only an example repeats a nonce.
fn encrypt(r: &Request) -> Result<Response> {
    let keys = loam::crypto("");
    let mut by = Cipher {
        key: r.path_value("key").to_string(),
        algorithm: "A256GCM".to_string(),
        nonce: b"twelve bytes".to_vec(),
        associated: b"tour".to_vec(),
    };
    let (secret, tag) = keys.encrypt(&by, r.body()?)?;
    let plain = keys.decrypt(&by, secret.clone(), &tag)?;
    by = Cipher { key: by.key, algorithm: "A256KW".to_string(), ..Cipher::default() };
    let (wrapped, _) = keys.wrap(&by, *b"a key of 16 byte")?;
    let key = keys.unwrap(&by, wrapped.clone(), b"")?;
    let text = format!(
        "{}, {}: {}; {}: {}\n",
        secret.len(),
        tag.len(),
        String::from_utf8_lossy(&plain),
        wrapped.len(),
        String::from_utf8_lossy(&key)
    );
    Ok(Response::text(200, text))
}

/// Signs what it is sent, and looks whether that can be told from another signature.
fn sign(r: &Request) -> Result<Response> {
    let (keys, key, body) = (loam::crypto(""), r.path_value("key"), r.body()?);
    let mut signature = keys.sign(key, "EdDSA", body.clone())?;
    let good = keys.verify(key, "EdDSA", body.clone(), &signature)?;
    signature[0] ^= 1;
    let bad = keys.verify(key, "EdDSA", body, &signature)?;
    Ok(Response::text(200, format!("{} bytes, {good}, {bad}\n", signature.len())))
}

fn public_key(r: &Request) -> Result<Response> {
    Ok(Response::text(200, loam::crypto("").public_key(r.path_value("key"))?))
}

/// Asks the binding for something of the file that the query names.
fn bind(r: &Request) -> Result<Response> {
    let file = r.query("file").unwrap_or_default();
    let (data, _) = loam::bind("", r.path_value("operation"), r.body()?, &[("fileName", &file)])?;
    Ok(Response::bytes(200, "application/octet-stream", data))
}

/// Has what it is sent brought back by work: when the query says, and in place of a job of that name if it says so.
fn schedule(r: &Request) -> Result<Response> {
    let schedule = r.query("schedule").unwrap_or_default();
    let job = Job {
        name: r.path_value("name").to_string(),
        repeats: if schedule.is_empty() { 1 } else { 2 },
        schedule,
        due: r.query("due").unwrap_or_default(),
        data: r.body()?,
        content_type: "text/plain".to_string(),
        retry_after_ms: 50,
        retries: 5,
        ..Job::default()
    };
    match r.query("replace").map_or(false, |b| !b.is_empty()) {
        true => loam::jobs("").replace(job)?,
        false => loam::jobs("").schedule(job)?,
    }
    Ok(Response::no_content())
}

fn get_job(r: &Request) -> Result<Response> {
    let j = loam::jobs("").get(r.path_value("name"))?;
    let data = String::from_utf8_lossy(&j.data);
    let line = format!("{} {} {} {} {} {} {data}\n", j.name, j.schedule, j.due, j.repeats, j.content_type, j.retries);
    Ok(Response::text(200, line))
}

fn delete_job(r: &Request) -> Result<Response> {
    loam::jobs("").delete(r.path_value("name"))?;
    Ok(Response::no_content())
}

/// Remembers what a job brought, and refuses the same jobs as noted does events.
fn work(r: &Request, data: Vec<u8>) -> Result<()> {
    match data.as_slice() {
        b"nonsense" => return Err(Error::drop_event("it is nonsense")),
        b"later" => return Err(Error::new(Code::Unavailable, "not now")),
        b"missing" => return loam::state("").get("notes/missing").map(|_| ()),
        _ => {}
    }
    let line = format!("{} {}", r.header.get("content-type"), String::from_utf8_lossy(&data));
    loam::state("").put(&format!("notes/job-{}", r.path_value("name")), line, If::Any)?;
    Ok(())
}

/// Remembers what an input binding brought, and answers it.
fn tick(r: &Request) -> Result<Response> {
    let line = format!("{} {}", r.header.get("timeZone"), String::from_utf8_lossy(&r.body()?));
    loam::state("").put("notes/tick", line, If::Any)?;
    Ok(Response::text(200, "ticked\n"))
}

/// Says what came.
fn echo(r: &Request) -> Result<Response> {
    let mut response = Response::bytes(200, r.header.get("content-type"), r.body()?);
    response.header.add("X-Echo", &format!("{} {} {} {}", r.method, r.host, r.path, r.raw_query));
    response.header.add("X-Fields", &r.header.0.len().to_string());
    response.header.add("X-Late", &r.deadline.map_or(false, |d| SystemTime::now() > d).to_string());
    Ok(response)
}

/// Another number for each request, though all begin from the same memory.
fn random(_: &Request) -> Result<Response> {
    Ok(Response::text(200, RandomState::new().build_hasher().finish().to_string()))
}
