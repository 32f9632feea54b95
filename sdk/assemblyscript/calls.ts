// The smaller capabilities: locks, configuration, sequences, secrets, bindings, other functions, hosts outside.

import * as api from "./api";
import * as host from "./host";
import { Code, Failure, Result } from "./errors";
import { attributes } from "./file";
import { Field, Header, Outgoing, Response } from "./http";
import { clock_time_get } from "./wasi";

/** A component of the lock capability: leases with an owner and an end. */
export class LockStore {
  constructor(private component: string) {}

  /** Takes name for owner until ttlMs have passed; false where another owner holds it. */
  tryLock(name: string, owner: string, ttlMs: i64): Result<bool> {
    const q = new api.LockTryLockRequest();
    q.component = this.component;
    q.name = name;
    q.owner = owner;
    q.ttlMs = ttlMs;
    const r = host.call<api.LockTryLockResponse>("lock.TryLock", q);
    if (!r.ok) return Result.failed<bool>(r.failure!);
    return Result.of<bool>(r.value.acquired);
  }

  /** Puts the end of owner's lease ttlMs from now. NotFound: nobody holds it; PermissionDenied: another owner does. */
  renew(name: string, owner: string, ttlMs: i64): Failure | null {
    const q = new api.LockRenewRequest();
    q.component = this.component;
    q.name = name;
    q.owner = owner;
    q.ttlMs = ttlMs;
    return host.call<api.Empty>("lock.Renew", q).failure;
  }

  /** Gives the lock back, with renew's failures. */
  unlock(name: string, owner: string): Failure | null {
    const q = new api.LockUnlockRequest();
    q.component = this.component;
    q.name = name;
    q.owner = owner;
    return host.call<api.Empty>("lock.Unlock", q).failure;
  }
}

/** The component of that name. */
export function lock(component: string = ""): LockStore {
  return new LockStore(component);
}

/** A component of the config capability. */
export class ConfigStore {
  constructor(private component: string) {}

  /** The value of key; one that is not there is NotFound. */
  get(key: string): Result<string> {
    const r = this.getMany([key]);
    if (!r.ok) return Result.failed<string>(r.failure!);
    if (r.value.length == 0) {
      return Result.failed<string>(new Failure(Code.NotFound, `config "${key}" is not there`));
    }
    return Result.of<string>(r.value[0].value);
  }

  /** The items of those keys that are there; all that are granted where none is named. */
  getMany(keys: string[] = []): Result<api.ConfigItem[]> {
    const q = new api.ConfigGetRequest();
    q.component = this.component;
    q.keys = keys;
    const r = host.call<api.ConfigGetResponse>("config.Get", q);
    if (!r.ok) return Result.failed<api.ConfigItem[]>(r.failure!);
    return Result.of<api.ConfigItem[]>(r.value.items);
  }
}

/** The component of that name. */
export function config(component: string = ""): ConfigStore {
  return new ConfigStore(component);
}

/** A component of the sequence capability: numbers that never come twice. */
export class SequenceStore {
  constructor(private component: string) {}

  /** Reserves count numbers of key and returns the first; the first ever is 1, and some may be left out. */
  next(key: string, count: i64 = 1): Result<i64> {
    const q = new api.SequenceNextRequest();
    q.component = this.component;
    q.key = key;
    q.count = count;
    const r = host.call<api.SequenceNextResponse>("sequence.Next", q);
    if (!r.ok) return Result.failed<i64>(r.failure!);
    return Result.of<i64>(r.value.first);
  }
}

/** The component of that name. */
export function sequence(component: string = ""): SequenceStore {
  return new SequenceStore(component);
}

/** The secret of that name; one that is not there is NotFound. */
export function secret(name: string, component: string = ""): Result<Uint8Array> {
  const q = new api.SecretGetRequest();
  q.component = component;
  q.name = name;
  const r = host.call<api.SecretGetResponse>("secret.Get", q);
  if (!r.ok) return Result.failed<Uint8Array>(r.failure!);
  return Result.of<Uint8Array>(r.value.value);
}

/**
 * Asks a binding for an operation of the system behind it. What data and metadata mean, the component says. What a binding
 * brings by itself, if it is an input, comes to the function as a POST to its route: handle("POST /nightly", …).
 */
export function bind(
  operation: string,
  data: Uint8Array,
  metadata: Field[] = [],
  component: string = "",
): Result<api.BindingInvokeResponse> {
  const q = new api.BindingInvokeRequest();
  q.component = component;
  q.operation = operation;
  q.data = data;
  q.metadata = attributes(metadata);
  return host.call<api.BindingInvokeResponse>("binding.Invoke", q);
}

/**
 * Asks another function, or the app, by name; path may have a query. Whatever it answers is a value, a 500 too: a
 * failure is a call that was not answered.
 */
export function invoke(target: string, path: string, request: Outgoing = new Outgoing()): Result<Response> {
  const q = new api.InvokeCallRequest();
  q.target = target;
  q.path = path;
  q.method = request.method;
  q.headers = request.header.toApi();
  q.body = request.body;
  q.timeoutMs = request.timeoutMs;
  const r = host.call<api.InvokeCallResponse>("invoke.Call", q);
  if (!r.ok) return Result.failed<Response>(r.failure!);
  const answer = new Response(r.value.status);
  answer.header = Header.fromApi(r.value.headers);
  answer.body = r.value.body;
  return Result.of<Response>(answer);
}

/** Sends a request to a host outside that was granted. Redirects are answers like all others. */
export function fetch(url: string, request: Outgoing = new Outgoing()): Result<Response> {
  const q = new api.HttpSendRequest();
  q.url = url;
  q.method = request.method;
  q.headers = request.header.toApi();
  q.body = request.body;
  q.timeoutMs = request.timeoutMs;
  const r = host.call<api.HttpSendResponse>("http.Send", q);
  if (!r.ok) return Result.failed<Response>(r.failure!);
  const answer = new Response(r.value.status);
  answer.header = Header.fromApi(r.value.headers);
  answer.body = r.value.body;
  return Result.of<Response>(answer);
}

/** The time, in milliseconds since 1970. */
export function now(): i64 {
  const to = memory.data(8);
  clock_time_get(0, 1000000, to);
  return <i64>(load<u64>(to) / 1000000);
}
