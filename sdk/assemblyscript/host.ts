// The guest's side of the loam ABI: raw calls, and the buffers they need.

import * as api from "./api";
import { Code, Failure, Result, codeOf } from "./errors";
import { Message, decode, encode } from "./wire";

// @ts-ignore: decorator
@external("loam", "request_head")
declare function request_head(to: usize, cap: i32): i32;
// @ts-ignore: decorator
@external("loam", "request_body")
declare function request_body(to: usize, cap: i32): i32;
// @ts-ignore: decorator
@external("loam", "response_head")
declare function response_head(from: usize, size: i32): void;
// @ts-ignore: decorator
@external("loam", "response_body")
declare function response_body(from: usize, size: i32): i32;
// @ts-ignore: decorator
@external("loam", "call")
declare function capability_call(method: usize, methodSize: i32, from: usize, size: i32, to: usize, cap: i32): i64;
// @ts-ignore: decorator
@external("loam", "result")
declare function call_result(to: usize, cap: i32): i32;

/** The size a buffer has at first: most answers fit. */
const GUESS: i32 = 4096;

/** The request that is being served. */
export function head(): api.RequestHead {
  let b = new Uint8Array(GUESS);
  const n = request_head(b.dataStart, b.length);
  if (n > b.length) {
    b = new Uint8Array(n);
    request_head(b.dataStart, n);
  }
  return decode<api.RequestHead>(b.subarray(0, n));
}

/** The whole body; length is what was announced, -1 where nobody knows. */
export function body(length: i64): Result<Uint8Array> {
  if (length == 0) return Result.of<Uint8Array>(new Uint8Array(0));
  // One byte more than announced, so that the end is seen without growing.
  let b = new Uint8Array(length < 0 ? GUESS : <i32>min<i64>(length + 1, 1 << 20));
  let have = 0;
  while (true) {
    if (have == b.length) {
      const more = new Uint8Array(2 * have);
      more.set(b);
      b = more;
    }
    const n = request_body(b.dataStart + have, b.length - have);
    if (n == 0) return Result.of<Uint8Array>(b.subarray(0, have));
    if (n < 0) {
      return Result.failed<Uint8Array>(
        new Failure(Code.InvalidArgument, "the request's body could not be read to its end, or is too large"),
      );
    }
    have += n;
  }
}

/** Answers the request. */
export function respond(head: api.ResponseHead, body: Uint8Array): void {
  const b = encode(head);
  response_head(b.dataStart, b.length);
  if (body.length > 0) response_body(body.dataStart, body.length); // where nobody reads any more there is nobody to tell either
}

/** Makes one capability call. */
export function call<M extends Message>(method: string, request: Message): Result<M> {
  const name = String.UTF8.encode(method);
  const b = encode(request);
  let out = new Uint8Array(GUESS);
  const packed = capability_call(changetype<usize>(name), name.byteLength, b.dataStart, b.length, out.dataStart, out.length);
  const code = <u32>(packed >> 32);
  const size = <i32>packed;
  if (size > out.length) {
    out = new Uint8Array(size);
    call_result(out.dataStart, size);
  }
  out = out.subarray(0, size);
  if (code == 0) return Result.of<M>(decode<M>(out));
  const e = decode<api.Error>(out);
  return Result.failed<M>(new Failure(codeOf(code), e.message == "" ? method + " failed" : e.message, e.hint));
}
