/** The hosts of functions through the objects of a namespace. */
import type { GoalAskRpc, HandsRpc, RunBatch } from "../../../shared/rpc-functions.ts";
import type { Network } from "../../kit/network.ts";
import type { Reach } from "../reach.ts";
import { hostOf } from "./host.ts";
import type { FunctionHost } from "./types.ts";

export const gateOf = (goalId: string): string => `proxy-${goalId}`;

/** A goal's functions call through the gate that its proxied calls pass. */
export function hostsOf(
  { GATE, GOAL }: Pick<Env, "GATE" | "GOAL">,
  reach: Reach | null,
  network?: Network,
): (batch: RunBatch) => FunctionHost {
  return (batch) => {
    const gateName = gateOf(batch.goalId);
    // A stub that has failed once fails for good.
    const gate = (): HandsRpc => GATE.get(GATE.idFromName(gateName)) as unknown as HandsRpc;
    const goal = (): GoalAskRpc => GOAL.get(GOAL.idFromName(batch.goalId));
    return hostOf(batch, { gate, gateName, goal, reach, network });
  };
}
