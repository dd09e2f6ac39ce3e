/** The sandbox: images of functions, and their invocations. */
export { buildImage } from "./snapshot/build.ts";
export { ENGINE_ID } from "./snapshot/engine-id.ts";
export { Sandbox } from "./snapshot/pool.ts";
