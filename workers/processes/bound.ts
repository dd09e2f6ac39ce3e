/** The processes that the local server has started for its executors. */
import { env } from "cloudflare:workers";
import type { ProcessRpc } from "../../shared/rpc-processes.ts";
import { Processes } from "./processes.ts";

const bindings = Object.entries(env).filter(([name]) => name.startsWith("EXECUTOR_PROCESS_"));

export const processes = new Processes(bindings.map(([, binding]) => binding as unknown as ProcessRpc));
