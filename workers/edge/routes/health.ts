/** The public routes: whether the Worker runs, and whether it can serve. They say nothing else. */
import { failure } from "../../../shared/errors.ts";
import { type EdgeContext, tenantStub } from "../context.ts";
import { secretFailure } from "../middleware/auth.ts";
import { json, problem } from "../reply.ts";

export function health(): Response {
  return json('{"status":"ok"}');
}

/** Ready: the root token is set, and the tenant's object answers. */
export async function ready(c: EdgeContext): Promise<Response> {
  const misconfigured = secretFailure(c.env);
  if (misconfigured !== null) return problem(misconfigured);
  try {
    await tenantStub(c.env).registry();
  } catch (error) {
    console.error("the tenant's object does not answer", error);
    return problem(failure("temporary_reduced_capacity", "the tenant's object does not answer", { retryAfterMs: 1_000 }));
  }
  return json('{"status":"ready"}');
}
