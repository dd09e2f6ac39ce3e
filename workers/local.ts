/** The entry of the local server: as it is deployed, but its executors may have processes of their own. */
export { default, ExecutorPool, Flight, Gate, Goal, Governor, Image, Locks, Tenant } from "./index.ts";
export { Executor } from "./processes/entrypoint.ts";
