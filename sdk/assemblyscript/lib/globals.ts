// What AssemblyScript's own library asks its host for, taken from WASI instead. asconfig.json puts it in place.

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: i32, iovs: usize, count: i32, written: usize): i32;

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "random_get")
declare function random_get(to: usize, size: i32): i32;

/** Where a program ends that threw: the reason becomes a line of the log. */
export function loam_abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const text = `abort: ${message ? message : ""} in ${file ? file : ""}:${line}:${column}\n`;
  const b = String.UTF8.encode(text);
  const iov = memory.data(16);
  store<usize>(iov, changetype<usize>(b));
  store<i32>(iov, b.byteLength, 4);
  fd_write(2, iov, 1, iov + 8);
  unreachable();
}

let seeded = false;

/** What Math.random begins with. */
export function loam_seed(): f64 {
  seeded = true;
  return reinterpret<f64>(random());
}

/**
 * Gives Math.random a new beginning, if it has one: who drew a number before the first request would otherwise go on from
 * there in every one of them.
 */
export function loam_reseed(): void {
  if (seeded) Math.seedRandom(random());
}

function random(): i64 {
  const to = memory.data(8);
  random_get(to, 8);
  return load<i64>(to);
}
