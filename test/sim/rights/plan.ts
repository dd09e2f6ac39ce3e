/** What a world's policies say, and how often they and its tokens change. From a chance of its own, so that other worlds stay as they are. */
import type { Policy } from "../../../shared/policy/rules.ts";
import type { Random } from "../random.ts";

export interface RightsPlan {
  /** Whether anything is restricted at all. */
  readonly isOn: boolean;
  /** The goal's own policies deny nothing: a goal that cannot be made is no world. */
  readonly goal: readonly Policy[];
  /** What the tenant's policy becomes, one after the other. */
  readonly tenant: readonly (Policy | null)[];
  /** How often a request comes with a token for the goal. */
  readonly tokens: number;
  readonly revocations: number;
  /** Approvals and denials, for each request with tasks. */
  readonly decisions: number;
}

const METHODS = ["GET", "PUT", "POST", "PATCH"];

export function rightsPlanOf(random: Random): RightsPlan {
  const isOn = random.chance(0.4);
  return {
    isOn,
    goal: isOn && random.chance(0.5) ? [{ requireApproval: [approvalOf(random)] }] : [],
    tenant: !isOn || random.chance(0.3) ? [] : Array.from({ length: random.between(1, 4) }, () => tenantPolicyOf(random)),
    tokens: isOn ? random.next() : 0,
    revocations: isOn && random.chance(0.5) ? random.between(1, 3) : 0,
    decisions: isOn ? random.next() * 3 : 0,
  };
}

function approvalOf(random: Random): { upstream: string; method?: string; path?: string } {
  return {
    upstream: random.pick(["*", "u0", "u1"]),
    ...(random.chance(0.7) && { method: random.pick(METHODS) }),
    ...(random.chance(0.2) && { path: "/1*" }),
  };
}

function tenantPolicyOf(random: Random): Policy | null {
  if (random.chance(0.2)) return null;
  return {
    ...(random.chance(0.4) && { methods: METHODS.filter(() => random.chance(0.7)) }),
    ...(random.chance(0.2) && { upstreams: ["u0"] }),
    ...(random.chance(0.2) && { queues: ["q0"] }),
    ...(random.chance(0.4) && { requireApproval: [approvalOf(random)] }),
  };
}

/** What a token allows. */
export function tokenPoliciesOf(random: Random): readonly Policy[] {
  return random.chance(0.5) ? [] : [{ methods: METHODS.filter(() => random.chance(0.7)) }];
}
