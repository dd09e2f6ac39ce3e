/** `/v1/policy`: what all goals of the tenant, and calls that are passed through, may do. */
import { failure } from "../../../shared/errors.ts";
import { parsePolicy } from "../../../shared/protocol/policy.ts";
import { type EdgeContext, tenantStub } from "../context.ts";
import { readJsonObject } from "../middleware/body.ts";
import { json, problem } from "../reply.ts";

/** A policy without rules is the one that restricts nothing. */
export async function getPolicy(c: EdgeContext): Promise<Response> {
  const { policy } = await tenantStub(c.env).registry();
  return json(JSON.stringify(policy ?? {}));
}

export async function putPolicy(c: EdgeContext): Promise<Response> {
  const request = await readJsonObject(c.req.raw);
  if (!request.ok) return problem(request.error);
  const parsed = parsePolicy(request.value.value);
  if (!parsed.ok) return problem(failure("invalid_request", "the policy is not valid; see errors", { errors: parsed.error }));
  const isEmpty = Object.keys(parsed.value).length === 0;
  await tenantStub(c.env).putPolicy(isEmpty ? null : parsed.value);
  return json(JSON.stringify(parsed.value));
}
