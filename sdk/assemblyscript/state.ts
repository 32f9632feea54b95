// Keys with values that survive the function.

import * as api from "./api";
import * as host from "./host";
import { Code, Failure, Result } from "./errors";
import { NewEvent } from "./pubsub";
import { textOf } from "./wire";

/** One key with what is stored under it. */
export class Item {
  constructor(
    public key: string,
    public value: Uint8Array,
    public etag: string, // changes with each write; empty: the key is not there
    public expiresUnixMs: i64, // 0: never
  ) {}

  /** Whether the key is there. */
  get exists(): bool {
    return this.etag != "";
  }

  /** The value as text. */
  text(): string {
    return textOf(this.value);
  }
}

function items(from: api.StateItem[]): Item[] {
  const to: Item[] = [];
  for (let i = 0; i < from.length; i++) {
    to.push(new Item(from[i].key, from[i].value, from[i].etag, from[i].expiresUnixMs));
  }
  return to;
}

/** What a write asks of the key as it is, and how long it holds. */
export class Write {
  ifMatch: string = "";
  ifAbsent: bool = false;
  ttlMs: i64 = 0; // 0: for ever

  /** It has the ETag that was read; "", of an item that was not there, stands for absent. */
  static ifMatch(etag: string): Write {
    const w = new Write();
    w.ifMatch = etag;
    w.ifAbsent = etag == "";
    return w;
  }

  /** It is not there. */
  static ifAbsent(): Write {
    return Write.ifMatch("");
  }

  /** It disappears after a time. */
  static ttl(ms: i64): Write {
    const w = new Write();
    w.ttlMs = ms;
    return w;
  }
}

/** A component of the state capability; "" is the default one. */
export class StateStore {
  constructor(private component: string) {}

  /** The item of key; one that is not there is NotFound. */
  get(key: string): Result<Item> {
    const r = this.getMany([key]);
    if (!r.ok) return Result.failed<Item>(r.failure!);
    if (!r.value[0].exists) {
      return Result.failed<Item>(new Failure(Code.NotFound, `state "${key}" is not there`));
    }
    return Result.of<Item>(r.value[0]);
  }

  /** One item for each key, in that order; those that are not there have no ETag. */
  getMany(keys: string[]): Result<Item[]> {
    const q = new api.StateGetRequest();
    q.component = this.component;
    q.keys = keys;
    const r = host.call<api.StateGetResponse>("state.Get", q);
    if (!r.ok) return Result.failed<Item[]>(r.failure!);
    if (r.value.items.length != keys.length) {
      return Result.failed<Item[]>(new Failure(Code.Internal, "state.Get: another number of items than of keys"));
    }
    return Result.of<Item[]>(items(r.value.items));
  }

  /**
   * At most limit items whose key begins with prefix and is greater than after, in byte order; limit 0 leaves the number
   * to the host. The last key is the next call's after.
   */
  list(prefix: string, after: string = "", limit: u32 = 0): Result<Item[]> {
    const q = new api.StateListRequest();
    q.component = this.component;
    q.prefix = prefix;
    q.after = after;
    q.limit = limit;
    const r = host.call<api.StateListResponse>("state.List", q);
    if (!r.ok) return Result.failed<Item[]>(r.failure!);
    return Result.of<Item[]>(items(r.value.items));
  }

  /** Stores value under key; the result is its new ETag. */
  put(key: string, value: Uint8Array, how: Write = new Write()): Result<string> {
    const r = this.begin().put(key, value, how).apply();
    if (!r.ok) return Result.failed<string>(r.failure!);
    return Result.of<string>(r.value.etags[0]);
  }

  /** Removes key; one that is not there is no error. */
  delete(key: string, how: Write = new Write()): Failure | null {
    return this.begin().delete(key, how).commit();
  }

  /** Starts a transaction. */
  begin(): Tx {
    return new Tx(this.component);
  }
}

/** The component of that name. */
export function state(component: string = ""): StateStore {
  return new StateStore(component);
}

/** Writes and events that are collected. Nothing happens before commit, and then all of it or nothing. */
export class Tx {
  private request: api.StateApplyRequest = new api.StateApplyRequest();

  constructor(component: string) {
    this.request.component = component;
  }

  /** Stores value under key. */
  put(key: string, value: Uint8Array, how: Write = new Write()): Tx {
    const op = new api.StateOp();
    op.value = value;
    return this.add(op, key, how);
  }

  /** Removes key. */
  delete(key: string, how: Write = new Write()): Tx {
    const op = new api.StateOp();
    op.delete = true;
    return this.add(op, key, how);
  }

  /** Publishes an event with the commit. */
  publish(event: NewEvent): Tx {
    this.request.events.push(event.toApi());
    return this;
  }

  /** Does everything collected, durably once it is null. With a failure that isConflict nothing was done. */
  commit(): Failure | null {
    return this.apply().failure;
  }

  apply(): Result<api.StateApplyResponse> {
    if (this.request.ops.length + this.request.events.length == 0) {
      return Result.of<api.StateApplyResponse>(new api.StateApplyResponse());
    }
    return host.call<api.StateApplyResponse>("state.Apply", this.request);
  }

  private add(op: api.StateOp, key: string, how: Write): Tx {
    op.key = key;
    op.ifMatch = how.ifMatch;
    op.ifAbsent = how.ifAbsent;
    op.ttlMs = how.ttlMs;
    this.request.ops.push(op);
    return this;
  }
}
