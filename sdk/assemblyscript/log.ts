// Log lines: each becomes one of Loam's, with the function and the request it belongs to. Attributes are names and
// values in turn: log.info("stock is low", ["item", "apple"]).

import { jsonString } from "./http";
import { fd_write } from "./wasi";

export function debug(message: string, attributes: string[] = []): void {
  line("DEBUG", message, attributes);
}

export function info(message: string, attributes: string[] = []): void {
  line("INFO", message, attributes);
}

export function warn(message: string, attributes: string[] = []): void {
  line("WARN", message, attributes);
}

export function error(message: string, attributes: string[] = []): void {
  line("ERROR", message, attributes);
}

function line(level: string, message: string, attributes: string[]): void {
  let text = `{"level":"${level}","msg":${jsonString(message)}`;
  for (let i = 0; i + 1 < attributes.length; i += 2) {
    text += `,${jsonString(attributes[i])}:${jsonString(attributes[i + 1])}`;
  }
  const b = String.UTF8.encode(text + "}\n");
  const iov = memory.data(16);
  store<usize>(iov, changetype<usize>(b));
  store<i32>(iov, b.byteLength, 4);
  fd_write(2, iov, 1, iov + 8);
}
