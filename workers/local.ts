/** The entry of the local server: as it is deployed, but its executors may have processes of their own. */
export * from "./index.ts";
export { default } from "./index.ts";
export { Executor } from "./processes/entrypoint.ts";
