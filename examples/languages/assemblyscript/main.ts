// The function of this example in AssemblyScript: it calls everything that there is to call. Its twins in the other
// folders do the same, line by line.

import {
  Code, Event, Failure, NewEvent, Field, Outgoing, Request, Response, Write, bytesOf, config, fetch, handle, handleEvent,
  invoke, lock, log, now, publish, secret, sequence, state, textOf,
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
