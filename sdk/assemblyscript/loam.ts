/**
 * How an AssemblyScript function talks to Loam: its main.ts registers handlers for the requests and events that reach
 * it, and calls the capabilities it was granted.
 *
 *   import { Request, Response, handle } from "./sdk/loam";
 *   export { loam_serve } from "./sdk/loam";
 *
 *   handle("GET /hello/{name}", (r: Request) => Response.text(200, `Hello, ${r.pathValue("name")}!\n`));
 *
 * loam build makes the module, by asc and the project's asconfig.json, which extends the SDK's. What stands at the top of
 * main.ts runs once, long before the first request and for all of them: what it keeps must be the same for everyone.
 * The language has no exceptions that can be caught: calls return a Result or a Failure, and what throws ends the
 * request with status 500.
 */

import * as api from "./api";
import * as host from "./host";
import * as log from "./log";
import { Code, Failure, codeName, codeStatus } from "./errors";
import { Field, Request, Response, jsonString } from "./http";
import { EventHandler, Handler, JobHandler, Route, add, routes } from "./routes";

export { Job } from "./api";
export { ConfigStore, LockStore, SequenceStore, bind, config, fetch, invoke, lock, now, secret, sequence } from "./calls";
export { Cipher, Ciphertext, CryptoStore, crypto } from "./crypto";
export { Code, Failure, Result, codeName, codeStatus } from "./errors";
export { File, FileInfo, FileQuery, FileStore, file } from "./file";
export { Event, Field, Header, Outgoing, Request, Response, jsonString } from "./http";
export { JobStore, jobs } from "./jobs";
export { NewEvent, publish } from "./pubsub";
export { Item, StateStore, Tx, Write, state } from "./state";
export { bytesOf, textOf } from "./wire";
export { log };

/**
 * Registers a handler for a pattern: an optional method, then a path whose segments may be {name}, and whose last one
 * may be {name...} for all that follows. A path that ends in a slash takes everything below it. The more specific
 * pattern wins, whatever the order.
 */
export function handle(pattern: string, handler: Handler): void {
  const route = new Route(pattern);
  route.handler = handler;
  add(route);
}

/**
 * Registers a handler for the events that a subscription routes to path. With null the event is done; with a failure it
 * is delivered again later, unless that is Failure.dropEvent. Events may come more than once: their id tells.
 */
export function handleEvent(path: string, handler: EventHandler): void {
  const route = new Route("POST " + path);
  route.eventHandler = handler;
  add(route);
}

/**
 * Registers a handler for the function's own jobs of a name, which may be a pattern: report, mail/{id}, {name...} for all
 * that no other handler is for. With null the run is done; with a failure it is tried again as the job says, unless that is
 * Failure.dropEvent. A run may come more than once.
 */
export function handleJob(name: string, handler: JobHandler): void {
  const route = new Route("POST /job/" + name);
  route.jobHandler = handler;
  add(route);
}

function run(route: Route, r: Request): Response {
  const handler = route.handler;
  if (handler) return handler(r);
  let f: Failure | null = null;
  const job = route.jobHandler;
  if (job) {
    const data = r.body();
    if (!data.ok) return data.response();
    f = job(r, data.value);
  } else {
    const e = r.event();
    if (!e.ok) return e.response();
    f = route.eventHandler!(r, e.value);
  }
  if (!f) return Response.noContent();
  if (f.code == Code.NotFound && !f.dropped) f.code = Code.Internal; // something else was not there; 404 would drop what came
  return f.response();
}

function answer(r: Request): Response {
  const allow: string[] = [];
  for (let i = 0; i < routes.length; i++) {
    const values = routes[i].values(r.path);
    if (values == null) continue;
    if (!routes[i].allows(r.method)) {
      if (!allow.includes(routes[i].method)) allow.push(routes[i].method);
      continue;
    }
    r.values = values;
    const response = run(routes[i], r);
    const f = response.failure;
    if (!f) return response;
    const attributes = ["method", r.method, "path", r.path, "code", codeName(f.code), "error", f.message];
    if (codeStatus(f.code) < 500) {
      log.warn("request failed", attributes);
      return failure(f.code, f.message);
    }
    log.error("request failed", attributes);
    return failure(f.code, ""); // what broke inside is not the caller's to read
  }
  if (allow.length == 0) return failure(Code.NotFound, "nothing answers " + r.path);
  const methods = allow.join(", ");
  const response = failure(Code.Unimplemented, `${r.method} is not among ${methods}`);
  response.status = 405;
  response.header.set("Allow", methods);
  return response;
}

/** Tells of an error: {"code": "not found", "message": "…"}. */
function failure(code: Code, message: string): Response {
  const more = message == "" ? "" : `,"message":${jsonString(message)}`;
  return Response.json(codeStatus(code), `{"code":"${codeName(code)}"${more}}`);
}

/** The host calls it for each request; main.ts exports it again. */
export function loam_serve(): void {
  // @ts-ignore: a global of lib/
  loam_reseed();
  const response = answer(new Request(host.head()));
  const head = new api.ResponseHead();
  head.status = response.status;
  head.headers = response.header.toApi();
  host.respond(head, response.body);
}
