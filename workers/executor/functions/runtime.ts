/** What functions run on in this isolate, in the batches of one executor. */
import type { FunctionVersion } from "../../../shared/protocol/function.ts";
import type { BatchReply } from "../../../shared/rpc-batch.ts";
import type { RunBatch } from "../../../shared/rpc-functions.ts";
import type { Network } from "../../kit/network.ts";
import { type Place, programOf, warm } from "../../sandbox/programs.ts";
import { hostsOf } from "../host/hosts.ts";
import type { Reach } from "../reach.ts";
import { settlerOf } from "../run-batch.ts";
import { runFunctions } from "./run-functions.ts";

/** What they reach by its name. */
export type ExecutorEnv = Pick<Env, "GOAL" | "GATE" | "IMAGE" | "LOADER">;

/** What differs between executors. */
export interface Surroundings {
  readonly place: Place;
  readonly waitUntil: (work: Promise<unknown>) => void;
  /** Null where nothing can be said before a call. */
  readonly reach: Reach | null;
  /** Left out: `fetch`. */
  readonly network?: Network | undefined;
}

export function runHere(env: ExecutorEnv, batch: RunBatch, { place, waitUntil, reach, network }: Surroundings): Promise<BatchReply> {
  return runFunctions(batch, {
    settle: settlerOf(env.GOAL),
    waitUntil,
    programOf: (version) => programOf(env, place, version),
    hostOf: hostsOf(env, reach, network),
  });
}

export function warmUp(env: ExecutorEnv, place: Place, version: FunctionVersion): Promise<void> {
  return warm(env, place, version);
}
