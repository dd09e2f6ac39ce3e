/** The entry of the local server: as it is deployed, but executors, and functions that are invoked by themselves, may have processes of their own. */
import { createEdge } from "./edge/app.ts";
import { runLoneElsewhere } from "./processes/elsewhere.ts";

export { ExecutorPool, Flight, Gate, Goal, Governor, Image, Locks, Tenant } from "./index.ts";
export { Executor } from "./processes/entrypoint.ts";

export default createEdge(runLoneElsewhere);
