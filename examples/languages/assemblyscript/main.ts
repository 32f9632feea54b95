// The function of this example in AssemblyScript: it calls everything that there is to call. Its twins in the other
// folders do the same, line by line.

import {
  Cipher, Code, Event, Failure, NewEvent, Field, FileQuery, Job, Outgoing, Request, Response, Write, bind, bytesOf, config, crypto,
  fetch, file, handle, handleEvent, handleJob, invoke, jobs, lock, log, now, publish, secret, sequence, state, textOf,
} from "../../../sdk/assemblyscript/loam";
export { loam_serve } from "../../../sdk/assemblyscript/loam";

// Counts how often it greeted whom. Two requests that greet the same name both read its ETag; the slower one looks again.
handle("GET /hello/{name}", (r: Request): Response => {
  const name = r.pathValue("name");
  let greeting = r.query("greeting");
  if (greeting == null) {
    const setting = config().get("greeting");
    if (!setting.ok) return setting.response();
    greeting = setting.value;
  }
  while (true) {
    const found = state().getMany(["visits/" + name]);
    if (!found.ok) return found.response();
    const item = found.value[0];
    const n = item.exists ? I32.parseInt(item.text()) + 1 : 1;
    const put = state().put("visits/" + name, bytesOf(n.toString()), Write.ifMatch(item.etag));
    if (put.isConflict) continue;
    if (!put.ok) return put.response();
    log.info("greeted", ["name", name]);
    return Response.text(200, `${greeting}, ${name}! Visit ${n}.\n`);
  }
});

handle("GET /visits", (r: Request): Response => {
  const items = state().list("visits/", "", 10);
  if (!items.ok) return items.response();
  let page = "";
  for (let i = 0; i < items.value.length; i++) {
    const it = items.value[i];
    page += `${it.key.substring("visits/".length)}: ${it.text()}\n`;
  }
  return Response.html(200, page);
});

// Stores a note and says so, both or neither; a note is written once.
handle("PUT /notes/{id}", (r: Request): Response => {
  const id = r.pathValue("id");
  const body = r.body();
  if (!body.ok) return body.response();
  if (body.value.length == 0) {
    return new Failure(Code.InvalidArgument, 'a note says something, even <this> "one"').response();
  }
  const event = new NewEvent("notes", "application/octet-stream", body.value);
  event.subject = id;
  event.attributes.push(new Field("size", body.value.length.toString()));
  const how = Write.ifAbsent();
  how.ttlMs = 3600 * 1000;
  const failed = state().begin().put("notes/" + id, body.value, how).publish(event).commit();
  if (failed) return failed.response();
  const response = Response.text(201, "");
  response.header.set("Location", "/notes/" + id);
  return response;
});

handle("GET /notes/{id}", (r: Request): Response => {
  const item = state().get("notes/" + r.pathValue("id"));
  if (!item.ok) return item.response();
  return Response.bytes(200, "application/octet-stream", item.value.value);
});

handle("DELETE /notes/{id}", (r: Request): Response => done(state().delete("notes/" + r.pathValue("id"))));

function done(failed: Failure | null): Response {
  return failed ? failed.response() : Response.noContent();
}

// Remembers what it was told. What no one will ever read is dropped; for some it has no time yet.
handleEvent("/events/notes", (r: Request, e: Event): Failure | null => {
  const text = textOf(e.data);
  if (text == "nonsense") return Failure.dropEvent("it is nonsense");
  if (text == "later") return new Failure(Code.Unavailable, "not now");
  if (text == "missing") return state().get("notes/missing").failure;
  let size = "";
  for (let i = 0; i < e.attributes.length; i++) {
    if (e.attributes[i].name == "size") size = e.attributes[i].value;
  }
  const line = `${e.type} ${e.source} ${e.topic} ${e.subject} ${e.contentType} ${size} ${e.data.length}`;
  return state().put("seen/" + e.id, bytesOf(line)).failure;
});

handle("POST /announce/{topic}", (r: Request): Response => {
  const body = r.body();
  if (!body.ok) return body.response();
  const event = NewEvent.text(r.pathValue("topic"), textOf(body.value));
  event.id = "one";
  event.type = "Announced";
  return done(publish(event));
});

handle("POST /locks/{name}/{owner}", (r: Request): Response => {
  const acquired = lock().tryLock(r.pathValue("name"), r.pathValue("owner"), 60000);
  if (!acquired.ok) return acquired.response();
  if (!acquired.value) return new Failure(Code.FailedPrecondition, "another holds it").response();
  return Response.text(200, "yours\n");
});

handle("PUT /locks/{name}/{owner}", (r: Request): Response =>
  done(lock().renew(r.pathValue("name"), r.pathValue("owner"), 60000)));

handle("DELETE /locks/{name}/{owner}", (r: Request): Response =>
  done(lock().unlock(r.pathValue("name"), r.pathValue("owner"))));

handle("POST /tickets/{count}", (r: Request): Response => {
  const count = r.pathValue("count");
  for (let i = 0; i < count.length; i++) {
    const c = count.charCodeAt(i);
    if ((c < 0x30 || c > 0x39) && !(i == 0 && c == 0x2d)) return new Failure(Code.InvalidArgument, "how many?").response();
  }
  const first = sequence().next("tickets", I64.parseInt(count));
  if (!first.ok) return first.response();
  return Response.text(200, first.value.toString() + "\n");
});

handle("GET /settings", (r: Request): Response => {
  const items = config().getMany();
  if (!items.ok) return items.response();
  let list = "";
  for (let i = 0; i < items.value.length; i++) list += `${items.value[i].key}=${items.value[i].value}\n`;
  return Response.text(200, list);
});

// Tells how long a secret is, and never what.
handle("GET /secrets/{name}", (r: Request): Response => {
  const value = secret(r.pathValue("name"));
  if (!value.ok) return value.response();
  return Response.text(200, `${value.value.length} bytes\n`);
});

// Hands a request on to another function.
handle("POST /ask/{target}/{path...}", (r: Request): Response => {
  const body = r.body();
  if (!body.ok) return body.response();
  const request = new Outgoing();
  request.body = body.value;
  request.timeoutMs = 1000;
  request.header.add("X-Asked-By", r.id);
  const answer = invoke(r.pathValue("target"), `/${r.pathValue("path")}?${r.rawQuery}`, request);
  if (!answer.ok) return answer.response();
  return Response.bytes(answer.value.status, answer.value.header.get("content-type"), answer.value.body);
});

handle("GET /fetch", (r: Request): Response => {
  const url = r.query("url");
  const answer = fetch(url == null ? "" : url);
  if (!answer.ok) return answer.response();
  return Response.text(200, `${answer.value.status} ${answer.value.text()}`);
});

function text(s: string | null): string {
  return s == null ? "" : s;
}

handle("PUT /files/{name...}", (r: Request): Response => {
  const body = r.body();
  if (!body.ok) return body.response();
  const etag = file().put(r.pathValue("name"), body.value, r.header.get("content-type"), [new Field("By", "tour")]);
  if (!etag.ok) return etag.response();
  return Response.text(201, etag.value + "\n");
});

// Adds to the end of a file, wherever that is.
handle("POST /files/{name...}", (r: Request): Response => {
  const name = r.pathValue("name");
  const body = r.body();
  if (!body.ok) return body.response();
  const info = file().stat(name);
  if (!info.ok && !info.isNotFound) return info.response();
  const end = file().append(name, info.ok ? info.value.size : 0, body.value);
  if (!end.ok) return end.response();
  return Response.text(200, `${end.value} bytes\n`);
});

function number(r: Request, name: string): i64 {
  const n = r.query(name);
  return n == null ? 0 : I64.parseInt(n); // from its begin where nothing is said
}

handle("GET /files/{name...}", (r: Request): Response => {
  const found = file().get(r.pathValue("name"), number(r, "from"), number(r, "length"));
  if (!found.ok) return found.response();
  const info = found.value.info;
  const response = Response.bytes(200, info.contentType, found.value.data);
  response.header.add("X-File", `${info.size} ${info.etag} by ${info.word("by")}`);
  return response;
});

handle("DELETE /files/{name...}", (r: Request): Response => done(file().delete(r.pathValue("name"))));

handle("GET /folder", (r: Request): Response => {
  const query = new FileQuery(text(r.query("prefix")));
  query.delimiter = "/";
  query.after = text(r.query("after"));
  query.limit = 2;
  const list = file().list(query);
  if (!list.ok) return list.response();
  let page = "";
  for (let i = 0; i < list.value.prefixes.length; i++) page += list.value.prefixes[i] + "\n";
  for (let i = 0; i < list.value.items.length; i++) page += `${list.value.items[i].name}: ${list.value.items[i].size}\n`;
  return Response.text(200, page + `next: ${list.value.next}\n`);
});

// Encrypts what it is sent, and answers what opens again; with ?broken=yes it is changed on the way.
handle("POST /seal/{key}", (r: Request): Response => {
  const body = r.body();
  if (!body.ok) return body.response();
  const sealed = crypto().seal(r.pathValue("key"), "AES", body.value);
  if (!sealed.ok) return sealed.response();
  if (text(r.query("broken")) != "") sealed.value[sealed.value.length - 1] ^= 1;
  const opened = crypto().open("", sealed.value);
  if (!opened.ok) return opened.response();
  return Response.bytes(200, "application/octet-stream", opened.value);
});

// Does the single operations with a key, there and back. Only an example repeats a nonce.
handle("POST /cipher/{key}", (r: Request): Response => {
  const body = r.body();
  if (!body.ok) return body.response();
  let by = new Cipher(r.pathValue("key"), "A256GCM");
  by.nonce = bytesOf("twelve bytes");
  by.associated = bytesOf("tour");
  const secret = crypto().encrypt(by, body.value);
  if (!secret.ok) return secret.response();
  const plain = crypto().decrypt(by, secret.value);
  if (!plain.ok) return plain.response();
  by = new Cipher(r.pathValue("key"), "A256KW");
  const wrapped = crypto().wrap(by, bytesOf("a key of 16 byte"));
  if (!wrapped.ok) return wrapped.response();
  const key = crypto().unwrap(by, wrapped.value);
  if (!key.ok) return key.response();
  const s = secret.value;
  return Response.text(
    200,
    `${s.data.length}, ${s.tag.length}: ${textOf(plain.value)}; ${wrapped.value.data.length}: ${textOf(key.value)}\n`,
  );
});

// Signs what it is sent, and looks whether that can be told from another signature.
handle("POST /sign/{key}", (r: Request): Response => {
  const key = r.pathValue("key");
  const body = r.body();
  if (!body.ok) return body.response();
  const signature = crypto().sign(key, "EdDSA", body.value);
  if (!signature.ok) return signature.response();
  const good = crypto().verify(key, "EdDSA", body.value, signature.value);
  if (!good.ok) return good.response();
  signature.value[0] ^= 1;
  const bad = crypto().verify(key, "EdDSA", body.value, signature.value);
  if (!bad.ok) return bad.response();
  return Response.text(200, `${signature.value.length} bytes, ${good.value}, ${bad.value}\n`);
});

handle("GET /keys/{key}", (r: Request): Response => {
  const key = crypto().publicKey(r.pathValue("key"));
  if (!key.ok) return key.response();
  return Response.text(200, key.value);
});

// Asks the binding for something of the file that the query names.
handle("POST /bind/{operation}", (r: Request): Response => {
  const body = r.body();
  if (!body.ok) return body.response();
  const answer = bind(r.pathValue("operation"), body.value, [new Field("fileName", text(r.query("file")))]);
  if (!answer.ok) return answer.response();
  return Response.bytes(200, "application/octet-stream", answer.value.data);
});

// Has what it is sent brought back by the job's handler: when the query says, and in place of a job of that name if it says so.
handle("POST /jobs/{name}", (r: Request): Response => {
  const body = r.body();
  if (!body.ok) return body.response();
  const job = new Job();
  job.name = r.pathValue("name");
  job.due = text(r.query("due"));
  job.schedule = text(r.query("schedule"));
  job.repeats = job.schedule == "" ? 1 : 2;
  job.data = body.value;
  job.contentType = "text/plain";
  job.retryAfterMs = 50;
  job.retries = 5;
  return done(text(r.query("replace")) != "" ? jobs().replace(job) : jobs().schedule(job));
});

handle("GET /jobs/{name}", (r: Request): Response => {
  const found = jobs().get(r.pathValue("name"));
  if (!found.ok) return found.response();
  const j = found.value;
  return Response.text(200, `${j.name} ${j.schedule} ${j.due} ${j.repeats} ${j.contentType} ${j.retries} ${textOf(j.data)}\n`);
});

handle("DELETE /jobs/{name}", (r: Request): Response => done(jobs().delete(r.pathValue("name"))));

// Remembers what a job brought, and refuses the same jobs as events above.
handleJob("{name}", (r: Request, data: Uint8Array): Failure | null => {
  const what = textOf(data);
  if (what == "nonsense") return Failure.dropEvent("it is nonsense");
  if (what == "later") return new Failure(Code.Unavailable, "not now");
  if (what == "missing") return state().get("notes/missing").failure;
  return state().put("notes/job-" + r.pathValue("name"), bytesOf(`${r.header.get("content-type")} ${what}`)).failure;
});

// Remembers what an input binding brought, and answers it.
handle("POST /tick", (r: Request): Response => {
  const body = r.body();
  if (!body.ok) return body.response();
  const put = state().put("notes/tick", bytesOf(`${r.header.get("timeZone")} ${textOf(body.value)}`));
  if (!put.ok) return put.response();
  return Response.text(200, "ticked\n");
});

// Says what came.
handle("/echo/", (r: Request): Response => {
  const body = r.body();
  if (!body.ok) return body.response();
  const response = Response.bytes(200, r.header.get("content-type"), body.value);
  response.header.add("X-Echo", `${r.method} ${r.host} ${r.path} ${r.rawQuery}`);
  response.header.add("X-Fields", r.header.fields.length.toString());
  response.header.add("X-Late", (r.deadlineUnixMs != 0 && now() > r.deadlineUnixMs).toString());
  return response;
});

// Another number for each request, though all begin from the same memory.
handle("GET /random", (r: Request): Response => Response.text(200, Math.random().toString()));

handle("GET /broken", (r: Request): Response => new Failure(Code.Unknown, "this stays in the log").response());

handle("GET /crash", (r: Request): Response => {
  throw new Error("this too");
});
