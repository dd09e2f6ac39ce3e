/** `/v1/policy`: what all goals of the tenant, and calls that are passed through, may do. */
import { parsePolicy } from "../../../shared/protocol/policy.ts";
import { type EdgeContext, tenantStub } from "../context.ts";
import { readAs } from "../middleware/shape.ts";
import { json, problem } from "../reply.ts";

/** A policy without rules is the one that restricts nothing. */
export async function getPolicy(c: EdgeContext): Promise<Response> {
  const { policy } = await tenantStub(c.env).registry();
  return json(JSON.stringify(policy ?? {}));
}

export async function putPolicy(c: EdgeContext): Promise<Response> {
  const request = await readAs(c.req.raw, "the policy", parsePolicy);
  if (!request.ok) return problem(request.error);
  const policy = request.value.value;
  const isEmpty = Object.keys(policy).length === 0;
  await tenantStub(c.env).putPolicy(isEmpty ? null : policy);
  return json(JSON.stringify(policy));
}
