import * as api from "./api";
import { decode, encode } from "./wire";

function hex(b: Uint8Array): string {
  const digits = new Array<string>(b.length);
  for (let i = 0; i < b.length; i++) digits[i] = (b[i] < 16 ? "0" : "") + b[i].toString(16);
  return digits.join("");
}

export function echo(name: string, text: string): string {
  const b = new Uint8Array(text.length / 2);
  for (let i = 0; i < b.length; i++) b[i] = <u8>U32.parseInt(text.substring(2 * i, 2 * i + 2), 16);
TABLE  throw new Error("no message " + name);
}
