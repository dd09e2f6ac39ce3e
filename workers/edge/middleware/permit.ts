/**
 * What a route asks of its caller. It is decided from the token and the path
 * alone, before any object is asked, so a refusal says nothing of what exists.
 */
import { failure } from "../../../shared/errors.ts";
import { parseGoalId, parseTaskId } from "../../../shared/ids.ts";
import type { Scope } from "../../../shared/token/caveats.ts";
import { refusalOf, type Wish } from "../../../shared/token/claims.ts";
import type { EdgeContext, Handler } from "../context.ts";
import { problem } from "../reply.ts";
import { endOf } from "./auth.ts";

export interface Access {
  /** The caller must have one of these. */
  readonly scopes: readonly Scope[];
  /** Concerns more than one goal, so a token for one goal does not do. */
  readonly isTenantWide?: boolean;
  /** A token that was revoked with its tenant's others is refused from the very next request on. */
  readonly isExact?: boolean;
}

/** The goal that the path names, itself or by a task of it. */
function goalIn(c: EdgeContext): string | undefined {
  const goal = c.req.param("goalId");
  if (goal !== undefined) return parseGoalId(goal) ?? undefined;
  return parseTaskId(c.req.param("taskId") ?? "")?.goalId;
}

/** A refusal of the wish by the caller's token; null where it allows it. A token for a goal does not reach the goals inside it; if it should, this is where they are let in. */
export function refused(c: EdgeContext, wish: Wish): Response | null {
  const { claims, rules } = c.get("caller");
  const detail = refusalOf(claims, wish, Date.now(), rules);
  return detail === null ? null : problem(failure("permission_denied", detail));
}

export function permitted({ scopes, isTenantWide = false, isExact = false }: Access, handler: Handler): Handler {
  return async (c) => {
    const goalId = goalIn(c);
    const refusal = refused(c, { scopes, isTenantWide, ...(goalId !== undefined && { goalId }) });
    if (refusal !== null) return refusal;
    const end = isExact ? await endOf(c.env, c.get("caller"), true) : null;
    return end === null ? handler(c) : problem(end);
  };
}
