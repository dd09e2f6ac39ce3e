/**
 * The deployment entry, and the one place that crosses rooms: the HTTP face,
 * the executor's entrypoint, and the Durable Object classes.
 */
import { createEdge } from "./edge/app.ts";

export { ExecutorPool } from "../durable-objects/executor/object.ts";
export { Flight } from "../durable-objects/flight/object.ts";
export { Gate } from "../durable-objects/gate/object.ts";
export { Governor } from "../durable-objects/governor/object.ts";
export { Goal } from "../durable-objects/goal/object.ts";
export { Image } from "../durable-objects/image/object.ts";
export { Locks } from "../durable-objects/locks/object.ts";
export { Tenant } from "../durable-objects/tenant/object.ts";
export { Executor } from "./executor/entrypoint.ts";

export default createEdge();
