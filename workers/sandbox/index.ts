/** The sandbox: images of functions, and their invocations. */
export { Isolates } from "./isolate/isolates.ts";
export { buildImage } from "./snapshot/build.ts";
export { ENGINE_ID } from "./snapshot/engine-id.ts";
export { Sandbox } from "./snapshot/pool.ts";
