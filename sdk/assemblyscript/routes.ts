// Which handler answers a request.

import { Event, Field, Request, Response, unescape } from "./http";
import { Failure } from "./errors";

export type Handler = (r: Request) => Response;
export type EventHandler = (r: Request, e: Event) => Failure | null;
export type JobHandler = (r: Request, data: Uint8Array) => Failure | null;

// In order of precedence; a rest takes all that follows.
enum Kind {
  Literal,
  Wildcard,
  Rest,
}

/** One part of a path between slashes: a literal, or a wildcard's name. */
class Segment {
  constructor(
    public kind: Kind,
    public text: string,
  ) {}
}

export class Route {
  method: string; // "": any
  handler: Handler | null = null;
  eventHandler: EventHandler | null = null;
  jobHandler: JobHandler | null = null;
  private segments: Segment[] = [];
  private prefix: string = ""; // what a path without escapes begins with

  constructor(public pattern: string) {
    const space = pattern.indexOf(" ");
    this.method = space < 0 ? "" : pattern.substring(0, space);
    const path = pattern.substring(space + 1);
    assert(path.startsWith("/"), `handle(${pattern}): want a pattern like "GET /orders/{id}"`);
    const parts = path.substring(1).split("/");
    for (let i = 0; i < parts.length; i++) {
      const last = i == parts.length - 1;
      let text = parts[i];
      let kind = text == "" && last ? Kind.Rest : Kind.Literal;
      if (text.startsWith("{")) {
        kind = Kind.Wildcard;
        text = text.endsWith("}") ? text.substring(1, text.length - 1) : "";
        if (last && text.endsWith("...")) {
          kind = Kind.Rest;
          text = text.substring(0, text.length - 3);
        }
        const wrong = text == "" || text.includes("{") || text.includes("}") || text.includes(".");
        assert(!wrong, `handle(${pattern}): a wildcard is {name}, or {name...} at the end`);
      }
      this.segments.push(new Segment(kind, text));
    }
    for (let i = 0; i < this.segments.length && this.segments[i].kind == Kind.Literal; i++) {
      this.prefix += "/" + this.segments[i].text;
    }
  }

  /** Literals before wildcards, longer paths before shorter ones, a method before none. 0: they match the same. */
  order(other: Route): i32 {
    for (let i = 0; i < min(this.segments.length, other.segments.length); i++) {
      const a = this.segments[i];
      const b = other.segments[i];
      if (a.kind != b.kind) return a.kind - b.kind;
      if (a.kind == Kind.Literal && a.text != b.text) return a.text < b.text ? -1 : 1;
    }
    if (this.segments.length != other.segments.length) return other.segments.length - this.segments.length;
    return this.method == other.method ? 0 : this.method > other.method ? -1 : 1;
  }

  allows(method: string): bool {
    return this.method == "" || this.method == method || (this.method == "GET" && method == "HEAD");
  }

  /** What the wildcards stand for; null where the path does not match. */
  values(path: string): Field[] | null {
    if (!path.startsWith("/") || (!path.startsWith(this.prefix) && !path.includes("%"))) return null;
    let rest = path.substring(1);
    const values: Field[] = [];
    for (let i = 0; i < this.segments.length; i++) {
      const s = this.segments[i];
      if (s.kind == Kind.Rest) {
        values.push(new Field(s.text, unescape(rest)));
        return values;
      }
      const end = rest.indexOf("/");
      if (end < 0 != (i == this.segments.length - 1)) return null;
      const part = unescape(end < 0 ? rest : rest.substring(0, end));
      if (s.kind == Kind.Literal ? part != s.text : part == "") return null;
      if (s.kind == Kind.Wildcard) values.push(new Field(s.text, part));
      rest = rest.substring(end + 1);
    }
    return values;
  }
}

/** The routes of this function, the more specific ones first, so that the first match is the right one. */
export const routes: Route[] = [];

/** Puts a route where it belongs. A pattern that is taken ends the program: that is its mistake. */
export function add(route: Route): void {
  let i = 0;
  for (; i < routes.length; i++) {
    const by = route.order(routes[i]);
    assert(by != 0, `handle(${route.pattern}): ${routes[i].pattern} is registered already and matches the same`);
    if (by < 0) break;
  }
  routes.push(route);
  for (let j = routes.length - 1; j > i; j--) routes[j] = routes[j - 1];
  routes[i] = route;
}
