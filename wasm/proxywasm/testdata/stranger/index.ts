// A function as its author wrote it for Layotto: by the AssemblyScript SDK for Proxy-Wasm, which knows nothing of Loam,
// and the calls that Layotto has beside it. One asks for the inventory of an article, the other looks it up.
export * from "@solo-io/proxy-runtime/proxy";
import { Context, FilterDataStatusValues, FilterHeadersStatusValues, LogLevelValues, RootContext, log, registerRootContext, send_local_response, stream_context } from "@solo-io/proxy-runtime";
import { BufferTypeValues, GrpcStatusValues, get_buffer_bytes } from "@solo-io/proxy-runtime/runtime";
import { free } from "@solo-io/proxy-runtime/malloc";

// @ts-ignore: decorator
@external("env", "proxy_set_buffer_bytes")
declare function proxy_set_buffer_bytes(buffer: u32, start: u32, size: u32, data: usize, length: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_state")
declare function proxy_get_state(store: usize, storeSize: usize, key: usize, keySize: usize, value: usize, size: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_invoke_service")
declare function proxy_invoke_service(id: usize, idSize: usize, method: usize, methodSize: usize, param: usize, paramSize: usize, result: usize, size: usize): u32;

const out = new StaticArray<usize>(2); // where the host writes address and length

function taken(status: u32): string {
  if (status != 0 || out[1] == 0) return "";
  const s = String.UTF8.decodeUnsafe(out[0], out[1]);
  free(out[0]);
  return s;
}

function state(store: string, key: string): string {
  const s = String.UTF8.encode(store), k = String.UTF8.encode(key);
  return taken(proxy_get_state(changetype<usize>(s), s.byteLength, changetype<usize>(k), k.byteLength, changetype<usize>(out), changetype<usize>(out) + 4));
}

function invoke(id: string, method: string, param: string): string {
  const i = String.UTF8.encode(id), m = String.UTF8.encode(method), p = String.UTF8.encode(param);
  return taken(proxy_invoke_service(changetype<usize>(i), i.byteLength, changetype<usize>(m), m.byteLength, changetype<usize>(p), p.byteLength,
    changetype<usize>(out), changetype<usize>(out) + 4));
}

function set(buffer: u32, text: string): void {
  const b = String.UTF8.encode(text);
  proxy_set_buffer_bytes(buffer, 0, b.byteLength, changetype<usize>(b), b.byteLength);
}

class Root extends RootContext {
  createContext(id: u32): Context { return new Shop(id, this); }
}

class Shop extends Context {
  onRequestHeaders(_: u32, __: bool): FilterHeadersStatusValues {
    if (stream_context.headers.request.get("x-greet") != "") {
      const body = String.UTF8.encode("hello " + stream_context.headers.request.get("x-greet"));
      send_local_response(418, "greeted", body, [], GrpcStatusValues.Ok);
      return FilterHeadersStatusValues.StopIteration;
    }
    return FilterHeadersStatusValues.Continue;
  }

  onRequestBody(size: usize, _: bool): FilterDataStatusValues {
    const body = String.UTF8.decode(get_buffer_bytes(BufferTypeValues.HttpRequestBody, 0, size as u32));
    if (body.startsWith("name=")) {
      const name = body.slice(5);
      set(1, "There are " + invoke("id_2", "", name) + " inventories for " + name + ".\n");
    } else if (body.startsWith("abort=")) {
      unreachable();
    } else {
      set(1, state("redis", body));
    }
    return FilterDataStatusValues.Continue;
  }
}

export function _start(): void {
  registerRootContext((id: u32) => { return new Root(id); }, "");
}

export function proxy_get_id(): void { set(8, "id_1"); }
