/** The hosts of functions through the objects of a namespace. */
import type { GoalAskRpc, HandsRpc, RunBatch } from "../../../shared/rpc-functions.ts";
import type { Network } from "../../kit/network.ts";
import type { Reach } from "../reach.ts";
import { hostOf } from "./host.ts";
import type { FunctionHost } from "./types.ts";

type HostEnv = Pick<Env, "GATE" | "GOAL">;

/** A goal's functions call through the gate that its proxied calls pass. */
export const gateNameOf = (goalId: string): string => `proxy-${goalId}`;

export function gateAt({ GATE }: HostEnv, goalId: string): HandsRpc {
  return GATE.get(GATE.idFromName(gateNameOf(goalId))) as unknown as HandsRpc;
}

export function goalAt({ GOAL }: HostEnv, goalId: string): GoalAskRpc {
  return GOAL.get(GOAL.idFromName(goalId));
}

export function hostsOf(env: HostEnv, reach: Reach | null, network?: Network): (batch: RunBatch) => FunctionHost {
  return (batch) => {
    const { goalId } = batch;
    // A stub that has failed once fails for good.
    const gate = (): HandsRpc => gateAt(env, goalId);
    const goal = (): GoalAskRpc => goalAt(env, goalId);
    return hostOf(batch, { gate, gateName: gateNameOf(goalId), goal, reach, network });
  };
}
