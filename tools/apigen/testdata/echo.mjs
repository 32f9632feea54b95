import { createInterface } from "node:readline";
import { echo } from "./main.js";

for await (const line of createInterface({ input: process.stdin })) {
  const [name, text] = line.split(":");
  let answer = "error";
  try {
    answer = echo(name, text);
  } catch {}
  console.log(answer);
}
