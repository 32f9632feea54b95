// Instantiates a module in node's V8 and calls it, as often as it is told: "PATH MILLISECONDS" a line in, µs of processor
// time for each out.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { WASI } from "node:wasi";

const modules = new Map();

for await (const line of createInterface({ input: process.stdin })) {
  const [path, ms] = line.split(" ");
  let module = modules.get(path);
  if (!module) modules.set(path, (module = new WebAssembly.Module(readFileSync(path))));
  const needs = WebAssembly.Module.imports(module);
  const env = { loam_abort() { throw new Error("abort"); }, abort() { throw new Error("abort"); } };
  const wasi = needs.some((i) => i.module === "wasi_snapshot_preview1");
  const once = () => {
    const host = wasi ? new WASI({ version: "preview1" }) : null;
    const { exports } = new WebAssembly.Instance(module, { env, loam: {}, ...(host ? host.getImportObject() : {}) });
    if (host) host.initialize({ exports });
    else exports._initialize?.();
    exports.loam_serve();
  };
  const until = performance.now() + Number(ms);
  const before = process.cpuUsage();
  let n = 0;
  do {
    once();
    n++;
  } while (performance.now() < until);
  const { user, system } = process.cpuUsage(before);
  process.stdout.write(`${(user + system) / n}\n`);
}
