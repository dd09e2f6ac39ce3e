/** The processes that the local server has started for its executors. */
import { env } from "cloudflare:workers";
import type { ProcessRpc } from "../../shared/rpc-processes.ts";
import { Processes, type Seat } from "./processes.ts";

const bindings = Object.entries(env).filter(([name]) => name.startsWith("EXECUTOR_PROCESS_"));

export const processes = new Processes(bindings.map(([, binding]) => binding as unknown as ProcessRpc));

/** A seat for a batch of these goals, or for none; null where none is to be had. Whoever asked may go away meanwhile, and it must not stay taken. */
export function seatFor(goalIds: readonly string[], waitUntil: (work: Promise<unknown>) => void): Promise<Seat | null> {
  const taking = processes.take(goalIds);
  waitUntil(taking);
  return taking;
}
