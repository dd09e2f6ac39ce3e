/** Makes workers/sandbox/engine.wasm: QuickJS of the package quickjs-wasi, metered. Run it after the package was updated. */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { meter } from "./engine/meter.ts";

const path = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url));

writeFileSync(path("workers/sandbox/engine.wasm"), meter(readFileSync(path("node_modules/quickjs-wasi/quickjs.wasm"))));
