/** A client's way to the governors of its upstreams: one object an upstream. */
import type { Grant, Report } from "../../shared/protocol/admission.ts";
import type { GovernorRpc } from "../../shared/rpc.ts";

export interface Governors {
  /** Makes a report; null where it got no answer. */
  exchange(upstream: string, report: Report): Promise<Grant | null>;
  /** Calls a second that a client of this weight may expect; 0 where nobody knows. */
  outlook(upstream: string, weight: number): Promise<number>;
}

export function governorsOf(env: Env): Governors {
  const governor = (upstream: string): GovernorRpc => env.GOVERNOR.get(env.GOVERNOR.idFromName(upstream));
  return {
    async exchange(upstream, report) {
      try {
        return await governor(upstream).exchange(report);
      } catch (error) {
        // The next report says all of it again; nothing is repeated here.
        console.warn(`the governor of ${upstream} did not answer: ${String(error)}`);
        return null;
      }
    },
    async outlook(upstream, weight) {
      try {
        return await governor(upstream).outlook(weight);
      } catch {
        return 0;
      }
    },
  };
}
