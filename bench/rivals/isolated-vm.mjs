// One function from a V8 startup snapshot of isolated-vm, a new isolate for each
// run: says how long each took. Run by Node with --no-node-snapshot:
//   node --no-node-snapshot isolated-vm.mjs FOLDER_OF_THE_PACKAGE RUNS < SCRIPT
import { createRequire } from "node:module";
import { join } from "node:path";
import { text } from "node:stream/consumers";

const [folder, runs] = process.argv.slice(2);
const ivm = createRequire(join(folder, "package.json"))("isolated-vm");
// Libraries look here whether code made of text is worth its while, and find the same on all sides.
const navigator = 'globalThis.navigator = { userAgent: "Cloudflare-Workers" };';
const snapshot = ivm.Isolate.createSnapshot([{ code: navigator }, { code: await text(process.stdin) }]);

const times = [];
let last = "";
for (let n = 0; n < Number(runs); n++) {
  const startedAt = performance.now();
  const isolate = new ivm.Isolate({ snapshot, memoryLimit: 64 });
  const context = await isolate.createContext();
  last = await context.evalClosure("return JSON.stringify(bundled.default(JSON.parse($0)))", [JSON.stringify({ n })]);
  times.push(performance.now() - startedAt);
  isolate.dispose();
}
process.stdout.write(JSON.stringify({ times, last: JSON.parse(last) }));
