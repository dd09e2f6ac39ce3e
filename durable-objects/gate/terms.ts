/** What a batch of functions has to know of an upstream before it calls there, and whether its goal may. */
import { type Failure, failure } from "../../shared/errors.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { HandTerms } from "../../shared/rpc-functions.ts";
import { type GoalCopy, type GoalStanding, type RegistryCopy, unknownUpstream, upstreamIn } from "./registry.ts";

export interface Found {
  readonly upstream: Upstream;
  readonly version: number;
  readonly told: readonly unknown[];
  readonly terms: HandTerms;
}

function termsOf(upstream: Upstream, tenantPolicy: HandTerms["tenantPolicy"], { policies }: GoalStanding): HandTerms {
  const { origins, headers, timeoutMs, retry, idempotency, reserve, usage } = upstream;
  return {
    origins,
    headers,
    timeoutMs,
    maxAttempts: retry.maxAttempts,
    isKeyed: idempotency === "key",
    reserve,
    tokensPointer: usage.tokens,
    costPointer: usage.costMicros ?? null,
    tenantPolicy,
    goalPolicies: policies,
  };
}

/** Never rejects. */
export async function termsAt(
  name: string,
  { registry, goal }: { readonly registry: RegistryCopy; readonly goal: GoalCopy },
): Promise<{ readonly fault: Failure } | Found> {
  try {
    const standing = await goal.get();
    // A pause stops what is to be started, not what runs.
    if (standing.failure !== null && standing.failure.code !== "conflict") return { fault: standing.failure };
    const found = await upstreamIn(registry, (one) => one.name === name);
    if (found === null) return { fault: unknownUpstream(name) };
    const { policy = null } = registry.fresh ?? (await registry.get());
    return {
      ...found,
      told: [JSON.stringify(found.upstream), policy, standing.policies],
      terms: termsOf(found.upstream, policy, standing),
    };
  } catch (error) {
    console.warn(`a gate did not learn of the upstream "${name}": ${String(error)}`);
    return { fault: failure("temporary_reduced_capacity", `nothing could be learned of the upstream "${name}" right now`) };
  }
}
