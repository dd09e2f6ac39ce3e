/**
 * Tasks that need approval: somebody approves or denies them, and those whose
 * tenant's policy has changed are looked at again when their turn comes.
 */
import { failure } from "../../../shared/errors.ts";
import { taskIdOf } from "../../../shared/ids.ts";
import { type Denial, type Rules, rulesOf, type Verdict } from "../../../shared/policy/rules.ts";
import { formatLine } from "../../../shared/protocol/line.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Bearer } from "../../../shared/token/claims.ts";
import { APPROVED, codeOf, FAILED, isTerminal, NEEDS_APPROVAL, QUEUED, RUN, STATUS_WORDS, WORK } from "./codes.ts";
import { finish } from "./lifecycle.ts";
import type { Recorder } from "./recorder.ts";
import { permissionDenied, standingRules, verdictOn } from "./rights.ts";
import { functionNameOf } from "./run-state.ts";
import { queueOf } from "./state.ts";
import type { Reply } from "./step.ts";

const DENIED = codeOf("denied");

/** Asking again for what was decided changes nothing. */
export function decideApproval(rec: Recorder, task: number, isApproved: boolean, bearer: Bearer): Reply {
  const { tasks, goal } = rec.state;
  const taskId = taskIdOf(goal!.id, task);
  const flags = tasks.flags[task]!;
  const status = tasks.status[task]!;
  if ((flags & NEEDS_APPROVAL) === 0) return err(failure("conflict", "the task needs no approval", { taskId }));
  const refusal = refusalFor(rec, task, bearer);
  if (refusal !== null) return err(refusal);
  if ((flags & APPROVED) !== 0) {
    return isApproved ? ok({ task }) : err(failure("conflict", "the task was approved; it can still be canceled", { taskId }));
  }
  if (isTerminal(status)) {
    const isDenied = tasks.code[task] === DENIED;
    if (isDenied && !isApproved) return ok({ task });
    return err(failure("conflict", `the task has ended: ${isDenied ? "denied" : STATUS_WORDS[status]!}`, { taskId }));
  }
  if (isApproved) rec.approve(task);
  else finish(rec, { task, status: FAILED, code: DENIED });
  return ok({ task });
}

/** Why a bearer may not decide about this task or have it run once more: nobody lends what they do not have. */
export function refusalFor(rec: Recorder, task: number, { policies }: Bearer): ReturnType<typeof permissionDenied> | null {
  const rules = rulesOf([{ from: "the token", policies }]);
  const verdict = rules === null ? "allowed" : verdictFor(rec, rules, task);
  return typeof verdict === "string" ? null : permissionDenied(verdict.detail, "");
}

function verdictFor({ state, out }: Recorder, rules: Rules, task: number): Verdict {
  const { tasks } = state;
  const { offer, position, flags } = tasks;
  if ((flags[task]! & RUN) !== 0) return rules.run(functionNameOf(state.upstreams[tasks.upstream[task]!]!));
  if ((flags[task]! & WORK) !== 0) return rules.work(queueOf(state, task));
  const call = out.callOf(offer[task]!, position[task]!);
  return call === undefined ? "allowed" : verdictOn(rules, { call });
}

/** Of tasks whose turn has come, those that may start. */
export function admitted(rec: Recorder, picked: number[]): number[] {
  const { rights, tasks } = rec.state;
  if (rights.recheckBelow === 0) return picked;
  for (const task of picked) recheck(rec, task);
  // The end of one may have taken another one along.
  return picked.filter((task) => tasks.status[task] === QUEUED);
}

/** Whether a task that runs may start now, too. */
export function mayRunAgain(rec: Recorder, task: number): boolean {
  const verdict = verdictNow(rec, task);
  return verdict === "allowed" || (verdict === "needs approval" && (rec.state.tasks.flags[task]! & APPROVED) !== 0);
}

/** Looks at a queued task again where the tenant's policy has changed. One that may not start ends as denied, or waits for approval. */
function recheck(rec: Recorder, task: number): void {
  const { tasks } = rec.state;
  if (tasks.status[task] !== QUEUED) return;
  const verdict = verdictNow(rec, task);
  if (verdict === "allowed") return;
  if (verdict !== "needs approval") deny(rec, task, verdict);
  else if ((tasks.flags[task]! & APPROVED) === 0) rec.park(task);
}

/** What is to be said of a task that was taken under an earlier policy of the tenant; of others that was said when they came. */
function verdictNow(rec: Recorder, task: number): ReturnType<typeof verdictFor> {
  const { rights, tasks } = rec.state;
  const rules = tasks.offer[task]! < rights.recheckBelow ? standingRules(rec.state) : null;
  return rules === null ? "allowed" : verdictFor(rec, rules, task);
}

function deny(rec: Recorder, task: number, { detail }: Denial): void {
  const attempt = rec.state.tasks.attempt[task]!;
  const head = { task, attempt, outcome: "answered", status: 0, retryAfterMs: 0, startedAtMs: 0, endedAtMs: 0 } as const;
  const place = rec.out.keep(formatLine(head, JSON.stringify({ code: "denied", detail })).trimEnd());
  finish(rec, { task, status: FAILED, code: DENIED, place });
}
