// Requests, responses, events.

import * as api from "./api";
import * as host from "./host";
import { Code, Failure, Result } from "./errors";
import { bytesOf, textOf } from "./wire";

/** Compares names of fields, which are ASCII. */
function sameName(a: string, b: string): bool {
  if (a.length != b.length) return false;
  for (let i = 0; i < a.length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x != y && ((x | 0x20) != (y | 0x20) || (x | 0x20) < 0x61 || (x | 0x20) > 0x7a)) return false;
  }
  return true;
}

/** One header line. */
export class Field {
  constructor(
    public name: string,
    public value: string,
  ) {}
}

/** The ordered list of a message's fields. Names compare without regard to case. */
export class Header {
  fields: Field[] = [];

  /** The first value of name; "" where there is none. */
  get(name: string): string {
    for (let i = 0; i < this.fields.length; i++) {
      if (sameName(this.fields[i].name, name)) return this.fields[i].value;
    }
    return "";
  }

  /** Appends a field. */
  add(name: string, value: string): void {
    this.fields.push(new Field(name, value));
  }

  /** Replaces every field of that name by one. */
  set(name: string, value: string): void {
    const kept: Field[] = [];
    for (let i = 0; i < this.fields.length; i++) {
      if (!sameName(this.fields[i].name, name)) kept.push(this.fields[i]);
    }
    this.fields = kept;
    this.add(name, value);
  }

  static fromApi(from: api.Header[]): Header {
    const h = new Header();
    for (let i = 0; i < from.length; i++) h.add(from[i].name, from[i].value);
    return h;
  }

  toApi(): api.Header[] {
    const to: api.Header[] = [];
    for (let i = 0; i < this.fields.length; i++) {
      const h = new api.Header();
      h.name = this.fields[i].name;
      h.value = this.fields[i].value;
      to.push(h);
    }
    return to;
  }
}

/** What a handler answers. */
export class Request {
  method: string;
  host: string; // as the Host header names it
  path: string; // as sent, with its escapes
  rawQuery: string; // without the question mark
  header: Header;
  id: string; // names this request in logs
  deadlineUnixMs: i64; // when the answer is worth nothing any more; 0: never
  values: Field[] = []; // of the pattern's wildcards
  private length: i64;
  private read: Result<Uint8Array> | null = null;

  constructor(head: api.RequestHead) {
    this.method = head.method;
    this.host = head.authority;
    this.path = head.path;
    this.rawQuery = head.query;
    this.header = Header.fromApi(head.headers);
    this.id = head.id;
    this.deadlineUnixMs = head.deadlineUnixMs;
    this.length = head.length;
  }

  /** What the wildcard called name matched, unescaped; "" where the pattern has none of that name. */
  pathValue(name: string): string {
    for (let i = 0; i < this.values.length; i++) {
      if (this.values[i].name == name) return this.values[i].value;
    }
    return "";
  }

  /** The first value of name in the query, unescaped; null where there is none. */
  query(name: string): string | null {
    const pairs = this.rawQuery.split("&");
    for (let i = 0; i < pairs.length; i++) {
      const pair = pairs[i].replaceAll("+", " ");
      const at = pair.indexOf("=");
      const key = percentDecode(at < 0 ? pair : pair.substring(0, at));
      const value = percentDecode(at < 0 ? "" : pair.substring(at + 1));
      if (key != null && value != null && key == name) return value;
    }
    return null;
  }

  /** The whole body. It is read once; later calls return the same bytes. */
  body(): Result<Uint8Array> {
    let r = this.read;
    if (!r) this.read = r = host.body(this.length);
    return r;
  }

  /** The request as a CloudEvent in binary mode. */
  event(): Result<Event> {
    if (this.header.get("ce-specversion") == "") {
      return Result.failed<Event>(new Failure(Code.InvalidArgument, "no event: CloudEvents headers are missing"));
    }
    const data = this.body();
    if (!data.ok) return Result.failed<Event>(data.failure!);
    const e = new Event();
    e.data = data.value;
    e.contentType = this.header.get("content-type");
    for (let i = 0; i < this.header.fields.length; i++) {
      const field = this.header.fields[i].name.toLowerCase();
      if (!field.startsWith("ce-")) continue;
      const name = field.substring(3);
      // What a header cannot hold comes by percent signs (CloudEvents 1.0, HTTP binding, section 3.1.3.2).
      const value = unescape(this.header.fields[i].value);
      if (name == "id") e.id = value;
      else if (name == "source") e.source = value;
      else if (name == "type") e.type = value;
      else if (name == "subject") e.subject = value;
      else if (name == "topic") e.topic = value;
      else if (name == "time") e.time = value;
      else if (name != "specversion") e.attributes.push(new Field(name, value));
    }
    return Result.of<Event>(e);
  }
}

/** A handler's answer, and what another function or a host answered. */
export class Response {
  header: Header = new Header();
  body: Uint8Array = new Uint8Array(0);
  failure: Failure | null = null; // what it tells of

  /** 0 counts as 200. */
  constructor(public status: i32 = 200) {}

  /** A body of that type. */
  static bytes(status: i32, contentType: string, body: Uint8Array): Response {
    const r = new Response(status);
    r.header.add("Content-Type", contentType);
    r.body = body;
    return r;
  }

  /** Plain text. */
  static text(status: i32, text: string): Response {
    return Response.bytes(status, "text/plain; charset=utf-8", bytesOf(text));
  }

  /** A page. */
  static html(status: i32, page: string): Response {
    return Response.bytes(status, "text/html; charset=utf-8", bytesOf(page));
  }

  /** Text that is JSON. */
  static json(status: i32, text: string): Response {
    return Response.bytes(status, "application/json", bytesOf(text + "\n"));
  }

  /** 204, with no body. */
  static noContent(): Response {
    return new Response(204);
  }

  /** The body as text. */
  text(): string {
    return textOf(this.body);
  }
}

/** A request that a function makes: invoke("mailer", "/mails", new Outgoing()). */
export class Outgoing {
  header: Header = new Header();
  body: Uint8Array = new Uint8Array(0);
  timeoutMs: i64 = 0; // 0: as long as the function itself has

  /** Empty: GET, with a body POST. */
  constructor(public method: string = "") {}
}

/** One message of a topic, with the attributes of CloudEvents 1.0. */
export class Event {
  id: string = ""; // unique within source; the same for every delivery of the event
  source: string = ""; // who published it
  type: string = ""; // what kind of thing happened
  subject: string = ""; // what it happened to
  topic: string = "";
  time: string = ""; // RFC 3339
  contentType: string = ""; // of data
  data: Uint8Array = new Uint8Array(0);
  attributes: Field[] = []; // extensions
}

/** Takes percent signs out of a text; one that is malformed stays as it is. */
export function unescape(s: string): string {
  const plain = percentDecode(s);
  return plain == null ? s : plain;
}

function percentDecode(s: string): string | null {
  if (!s.includes("%")) return s;
  const from = bytesOf(s);
  const to = new Uint8Array(from.length);
  let n = 0;
  for (let i = 0; i < from.length; i++) {
    let c = <i32>from[i];
    if (c == 0x25) {
      if (i + 2 >= from.length) return null;
      const high = digit(from[i + 1]);
      const low = digit(from[i + 2]);
      if (high < 0 || low < 0) return null;
      c = high * 16 + low;
      i += 2;
    }
    to[n++] = <u8>c;
  }
  return textOf(to.subarray(0, n));
}

function digit(c: u8): i32 {
  if (c >= 0x30 && c <= 0x39) return c - 0x30;
  const lower = c | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : -1;
}

/** A text as a JSON string, with its quotes. */
export function jsonString(s: string): string {
  let out = '"';
  for (let i = 0; i < s.length; i++) {
    const c = s.charCodeAt(i);
    if (c == 0x22) out += '\\"';
    else if (c == 0x5c) out += "\\\\";
    else if (c == 0x0a) out += "\\n";
    else if (c == 0x0d) out += "\\r";
    else if (c == 0x09) out += "\\t";
    else if (c < 0x20) out += "\\u00" + (c < 0x10 ? "0" : "1") + (c & 15).toString(16);
    else out += s.charAt(i);
  }
  return out + '"';
}
