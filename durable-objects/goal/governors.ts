/** The goal's way to the governors of its upstreams: one object an upstream. */
import type { Grant, Report } from "../../shared/protocol/admission.ts";
import type { GovernorRpc } from "../../shared/rpc.ts";

/** Makes a report; null where it got no answer. */
export type Governors = (upstream: string, report: Report) => Promise<Grant | null>;

export function governorsOf(env: Env): Governors {
  return async (upstream, report) => {
    const governor = env.GOVERNOR.get(env.GOVERNOR.idFromName(upstream)) as unknown as GovernorRpc;
    try {
      return await governor.exchange(report);
    } catch (error) {
      // The next report says all of it again; nothing is repeated here.
      console.warn(`the governor of ${upstream} did not answer: ${String(error)}`);
      return null;
    }
  };
}
