/** A goal as a caller describes it, and as Drover shows it. */
import * as v from "valibot";
import type { Failure, Fault } from "../errors.ts";
import { type GoalId, parseGoalId } from "../ids.ts";
import { DEPTH_MAX, DURATION_MS_MAX, RETENTION_MS_DEFAULT, TASKS_PER_REQUEST_MAX, TITLE_CHARS_MAX, WEIGHT_MAX } from "../limits.ts";
import type { Policy } from "../policy/rules.ts";
import { err, ok, type Result } from "../result.ts";
import { amounts, type NamedAmounts } from "./budget.ts";
import { faultsOf } from "./faults.ts";
import { policySchema } from "./policy.ts";
import type { ParentLink } from "./subgoal.ts";
import { completion, integer, labels, object, taskFaults } from "./task-schema.ts";
import { type CompletionRule, isTaskSpec } from "./task.ts";

const FAULTS_MAX = 20;

export const TASK_STATUSES = ["queued", "waiting", "running", "succeeded", "failed", "canceled", "expired"] as const;
export type TaskStatus = (typeof TASK_STATUSES)[number];
export type Counts = Readonly<Record<TaskStatus, number>> & { readonly total: number };

export const GOAL_STATUSES = ["active", "paused", "succeeded", "failed", "canceled", "expired"] as const;
export type GoalStatus = (typeof GOAL_STATUSES)[number];

export interface GoalSpec {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly deadlineMs: number | null;
  readonly retentionMs: number;
  readonly completion: CompletionRule;
  readonly sealed: boolean;
  /** Its part of an upstream that several goals want, in relation to theirs. */
  readonly weight: number;
  /** All of them must allow what the goal does; left out, everything is allowed. */
  readonly policies?: readonly Policy[];
  /** What it may spend; a dimension that is left out has no limit of its own. */
  readonly budget?: NamedAmounts;
  /** What becomes of it when nothing that waits can be afforded; left out: it pauses. */
  readonly onBudgetExhausted?: "pause" | "fail";
  /** Left out where the goal is nobody's sub-goal. */
  readonly parent?: ParentLink;
}

/** The goal on the wire. Timestamps are RFC 3339 with milliseconds. */
export interface GoalView {
  readonly id: string;
  readonly parentGoalId?: string;
  readonly parentTaskId?: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly status: GoalStatus;
  readonly createdAt: string;
  readonly endedAt?: string;
  readonly deadlineAt: string | null;
  readonly sealed: boolean;
  /** Rises when the goal's tokens are revoked. */
  readonly epoch: number;
  /** All of them must allow what the goal does. */
  readonly policies: readonly Policy[];
  /** Over all tasks of the goal, those of its sub-goals included as far as they have reported. */
  readonly counts: Counts;
  readonly joined: number;
  /** Tasks that are queued, and when one that was added now would start, in milliseconds. */
  readonly position: number;
  readonly estimatedStartMs: number;
  readonly budget: {
    readonly limit: NamedAmounts;
    readonly reserved: NamedAmounts;
    readonly spent: NamedAmounts;
    /** Only where nothing that waits can be afforded. */
    readonly exhausted?: true;
  };
  readonly latency: { readonly p50Ms: number | null; readonly p95Ms: number | null; readonly p99Ms: number | null };
  readonly storage: { readonly rowsWritten: number };
  /** Why a sub-goal could not begin. */
  readonly problem?: Failure;
}

const ENTRIES = {
  name: v.optional(v.pipe(v.string(), v.maxLength(TITLE_CHARS_MAX, `must have at most ${TITLE_CHARS_MAX} characters`))),
  labels: v.optional(labels),
  deadlineMs: v.optional(integer(1, DURATION_MS_MAX)),
  retentionMs: v.optional(integer(0, DURATION_MS_MAX)),
  completion: v.optional(completion),
  sealed: v.optional(v.boolean()),
  budget: v.optional(amounts),
  onBudgetExhausted: v.optional(v.picklist(["pause", "fail"])),
  weight: v.optional(
    v.pipe(v.number(), v.minValue(0.001, "must be at least 0.001"), v.maxValue(WEIGHT_MAX, `must be at most ${WEIGHT_MAX}`)),
  ),
  policy: v.optional(policySchema),
  tasks: v.optional(v.pipe(v.array(v.unknown()), v.maxLength(TASKS_PER_REQUEST_MAX, `must have at most ${TASKS_PER_REQUEST_MAX} tasks`))),
};

const nested = object(ENTRIES);
const schema = object({
  ...ENTRIES,
  parentGoalId: v.optional(
    v.pipe(
      v.string(),
      v.check((id) => parseGoalId(id) !== null, "must be a goal's id"),
    ),
  ),
});

/** Reads the body of `POST /v1/goals`. The tasks in it are checked by the goal, one by one. */
export function parseGoal(body: unknown): Result<{ spec: GoalSpec; tasks: readonly unknown[]; parentGoalId?: GoalId }, Fault[]> {
  const parsed = v.safeParse(schema, body);
  if (!parsed.success) return err(faultsOf(parsed, ""));
  const { parentGoalId, ...rest } = parsed.output;
  return ok({ ...describe(rest), ...(parentGoalId !== undefined && { parentGoalId: parentGoalId as GoalId }) });
}

/**
 * Reads the goal in a task of kind `goal`, which `goalFaults` found fine. It is
 * sealed where it brings tasks and does not say otherwise: the task is to end.
 */
export function parseNestedGoal(goal: unknown): { spec: GoalSpec; tasks: readonly unknown[] } {
  const output = v.parse(nested, goal);
  return describe({ ...output, sealed: output.sealed ?? (output.tasks ?? []).length > 0 });
}

/** The faults of a goal inside a task, and of all that is inside of it, each with its JSON pointer below `at`; none if it is fine. */
export function goalFaults(goal: unknown, at: string, level = 1): Fault[] {
  if (level > DEPTH_MAX) return [{ pointer: at, detail: `goals are more than ${DEPTH_MAX} levels deep` }];
  const parsed = v.safeParse(nested, goal);
  if (!parsed.success) return faultsOf(parsed, at);
  const faults: Fault[] = [];
  for (const [i, task] of (parsed.output.tasks ?? []).entries()) {
    const here = `${at}/tasks/${i}`;
    if (!isTaskSpec(task)) faults.push(...taskFaults(task, here));
    else if (task.goal !== undefined) faults.push(...goalFaults(task.goal, `${here}/goal`, level + 1));
    if (faults.length >= FAULTS_MAX) break;
  }
  return faults.slice(0, FAULTS_MAX);
}

function describe(output: v.InferOutput<typeof nested>): { spec: GoalSpec; tasks: readonly unknown[] } {
  const { name, labels, deadlineMs, retentionMs, completion, sealed, weight, policy, tasks, budget, onBudgetExhausted } = output;
  return {
    spec: {
      name: name ?? "",
      labels: labels ?? {},
      deadlineMs: deadlineMs ?? null,
      retentionMs: retentionMs ?? RETENTION_MS_DEFAULT,
      completion: (completion ?? {}) as CompletionRule,
      sealed: sealed ?? false,
      weight: weight ?? 1,
      ...(policy !== undefined && { policies: [policy as Policy] }),
      ...(budget === undefined ? {} : { budget: budget as NamedAmounts }),
      ...(onBudgetExhausted === undefined ? {} : { onBudgetExhausted }),
    },
    tasks: tasks ?? [],
  };
}
