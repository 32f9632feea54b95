// What can go wrong.

import { Response } from "./http";

/** What kind of failure it is: gRPC's codes, by gRPC's numbers. */
export enum Code {
  Ok,
  Canceled, // the caller went away
  Unknown, // nobody classified it
  InvalidArgument, // the request can never succeed as it is
  DeadlineExceeded, // it took too long
  NotFound, // no such thing
  AlreadyExists, // it is there, and must not be
  PermissionDenied, // known, but not granted
  ResourceExhausted, // a limit or quota was hit
  FailedPrecondition, // not in the system's present state
  Aborted, // a concurrent change won
  OutOfRange, // past the end
  Unimplemented, // not done here
  Internal, // something is broken
  Unavailable, // try again, later
  DataLoss, // stored data is damaged
  Unauthenticated, // not known
}

const names: string[] = [
  "ok", "canceled", "unknown", "invalid argument", "deadline exceeded", "not found", "already exists", "permission denied",
  "resource exhausted", "failed precondition", "aborted", "out of range", "unimplemented", "internal", "unavailable",
  "data loss", "unauthenticated",
];

const statuses: i32[] = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];

/** The code in words. */
export function codeName(c: Code): string {
  return names[c];
}

/** The HTTP status that says the same. */
export function codeStatus(c: Code): i32 {
  return statuses[c];
}

/** The code of that number. */
export function codeOf(n: u32): Code {
  return n < <u32>names.length ? <Code>n : Code.Unknown;
}

/** A failure with a code. */
export class Failure {
  /** Of an event: it can never be handled and is not to come again. */
  dropped: bool = false;

  constructor(
    public code: Code,
    public message: string = "",
    /** What to do next, for the person who operates this. */
    public hint: string = "",
  ) {
    if (message == "") this.message = codeName(code);
  }

  /** From an event's handler: it can never be handled. It is logged and not delivered again. */
  static dropEvent(message: string): Failure {
    const f = new Failure(Code.NotFound, message);
    f.dropped = true;
    return f;
  }

  /** Somebody else was first: an ETag that no longer matches, or a key that is there. Read again and decide anew. */
  get isConflict(): bool {
    return this.code == Code.Aborted || this.code == Code.AlreadyExists;
  }

  /** The answer that tells of the failure. What has status 500 and above is logged and not told to the caller. */
  response(): Response {
    const r = new Response(codeStatus(this.code));
    r.failure = this;
    return r;
  }
}

/** What a call came to: a value, or the failure that is in its place. */
export class Result<T> {
  private constructor(
    private held: T,
    public failure: Failure | null,
  ) {}

  static of<T>(value: T): Result<T> {
    return new Result<T>(value, null);
  }

  static failed<T>(f: Failure): Result<T> {
    if (isReference<T>()) return new Result<T>(changetype<T>(<usize>0), f);
    // @ts-ignore: a number
    return new Result<T>(<T>0, f);
  }

  /** Whether there is a value. */
  get ok(): bool {
    return this.failure == null;
  }

  /** The value; asked for where there is none, it ends the program. */
  get value(): T {
    const f = this.failure;
    if (f) throw new Error(f.message);
    return this.held;
  }

  get code(): Code {
    const f = this.failure;
    return f ? f.code : Code.Ok;
  }

  get isNotFound(): bool {
    return this.code == Code.NotFound;
  }

  get isConflict(): bool {
    const f = this.failure;
    return f != null && f.isConflict;
  }

  /** The failure's answer. */
  response(): Response {
    return this.failure!.response();
  }
}
