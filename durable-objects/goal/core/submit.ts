/**
 * Takes the tasks of one request: finds the ones that join others, rejects the
 * ones that cannot be, and adds the rest. All of it in one step, so a request
 * is taken as a whole or, where it is atomic and one task is bad, not at all.
 */
import { assert } from "../../../shared/assert.ts";
import { type Failure, failure, type Fault } from "../../../shared/errors.ts";
import { type Policy, type Rules, rulesBelow } from "../../../shared/policy/rules.ts";
import {
  DEPTH_MAX,
  FUNCTIONS_PER_GOAL_MAX,
  SUBGOALS_PER_GOAL_MAX,
  TASKS_PER_GOAL_MAX,
  WORK_QUEUES_PER_GOAL_MAX,
} from "../../../shared/limits.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import type { NamedAmounts } from "../../../shared/protocol/budget.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import { hasLinks } from "./add.ts";
import { DEPENDENCY_FAILED, GROUP, RUN } from "./codes.ts";
import { type Estimator, estimatorOf, type Outlooks } from "./estimate.ts";
import { KeyIndex } from "./key-index.ts";
import { cascade, freeDependent } from "./lifecycle.ts";
import { checkLinks, depthOf, type Draft } from "./links.ts";
import type { Recorder } from "./recorder.ts";
import { permissionDenied, verdictOn } from "./rights.ts";
import { functionNameOf, runQueueName } from "./run-state.ts";
import { exhausted } from "./reservations.ts";
import { type GoalState, newState, upstreamNamed, workQueueName } from "./state.ts";

export interface Submit {
  readonly kind: "submit";
  /** The tasks as they were parsed; null where one is not a task at all. */
  readonly specs: readonly (TaskSpec | null)[];
  /** Why a spec is null, by place. */
  readonly failures: ReadonlyMap<number, Failure>;
  /** Keys derived from content, by place. */
  readonly contentKeys: ReadonlyMap<number, string>;
  readonly atomic: boolean;
  /** Where the tasks are a part of an offer: its number, and the place of the first one. */
  readonly within?: { readonly offer: number; readonly base: number };
  /** What the goal may expect of upstreams that it has not dealt with yet. */
  readonly outlooks?: Outlooks;
}

/** What became of each task of a request. */
export interface Receipts {
  readonly accepted: number;
  readonly joined: number;
  readonly rejected: ReadonlyMap<number, Failure>;
  /** The task's number by place; -1 where it was rejected. */
  readonly tasks: Int32Array;
  /** Whether the place joined a task that was there. */
  readonly joins: Uint8Array;
  /** Tasks ahead of the first one, and the estimate of its start. */
  readonly position: number;
  readonly estimatedStartMs: number;
  /** Estimates for the queued tasks of the request, in their order. */
  readonly estimator: Estimator;
  /** The offer that the accepted tasks belong to; 0 where there are none. */
  readonly offer: number;
}

const FAULTS_IN_ANSWER_MAX = 20;

/** Decides about every task of a request, and changes nothing yet. `room`: how many the budget allows. `base`: levels of tasks above the goal's own. */
export function draftOf(
  state: GoalState,
  command: Submit,
  rules: Rules | null,
  room: number,
  base = baseOf(state),
): Result<Draft, Failure> {
  const { specs, atomic } = command;
  if (state.tasks.n + specs.length > TASKS_PER_GOAL_MAX) {
    return err(failure("quota_exceeded", `a goal takes at most ${TASKS_PER_GOAL_MAX} tasks; this one has ${state.tasks.n}`));
  }
  const draft = sortOut(state, command, rules, room);
  if (draft.nested.length > 0) rejectNested(state, draft, rules, base);
  checkLinks(state, draft, rules, base);
  return atomic && draft.rejected.size > 0 ? err(atomicFailure(draft.rejected)) : ok(draft);
}

/** First pass: what is permitted, upstreams, the budget, and keys that are known already, in the goal or earlier in the request. */
function sortOut(state: GoalState, command: Submit, rules: Rules | null, room: number): Draft {
  const rejected = new Map(command.failures);
  const places = new KeyIndex([], command.specs.length);
  const joins = new Map<number, number | string>();
  const linked: number[] = [];
  const approvals: number[] = [];
  const nested: number[] = [];
  // Most requests are for one upstream; it is looked up once.
  let usable = "";
  let callable = "";
  const mayQueue = entryGuard(state, workQueueName, WORK_QUEUES_PER_GOAL_MAX);
  const mayRun = entryGuard(state, runQueueName, FUNCTIONS_PER_GOAL_MAX);
  let left = room;
  const hasKeys = state.keys.size > 0;
  for (let place = 0; place < command.specs.length; place++) {
    const spec = command.specs[place]!;
    if (spec === null) {
      assert(rejected.has(place), "a spec is missing only with a reason");
      continue;
    }
    const verdict = rules === null ? "allowed" : verdictOn(rules, spec);
    if (typeof verdict !== "string") {
      rejected.set(place, permissionDenied(verdict.detail, pointerOf(spec)));
      continue;
    }
    const upstream = spec.call?.upstream;
    if (upstream !== undefined && upstream !== usable) {
      if (!isUsable(state, upstream)) {
        rejected.set(place, unknownUpstream(upstream));
        continue;
      }
      usable = upstream;
    }
    const name = spec.run?.function;
    if (name !== undefined && name !== callable) {
      const fault = functionFault(state, name, mayRun);
      if (fault !== null) {
        rejected.set(place, fault);
        continue;
      }
      callable = name;
    }
    if (spec.work !== undefined && !mayQueue(spec.work.queue)) {
      rejected.set(place, tooManyQueues());
      continue;
    }
    const key = spec.key ?? command.contentKeys.get(place);
    if (key !== undefined) {
      const known = (hasKeys ? state.keys.get(key) : undefined) ?? (places.add(key, place) === undefined ? undefined : key);
      if (known !== undefined) {
        joins.set(place, known);
        continue;
      }
    }
    if (--left < 0) {
      rejected.set(place, exhausted("another task"));
      continue;
    }
    if (verdict === "needs approval") approvals.push(place);
    if (spec.goal !== undefined) nested.push(place);
    if (hasLinks(spec)) linked.push(place);
  }
  return { specs: command.specs, rejected, places, joins, nested, linked, approvals };
}

/** A goal inside a task is looked at as it will be when its turn has come: what could not be taken then is not taken now. */
function rejectNested(state: GoalState, draft: Draft, rules: Rules | null, base: number): void {
  const room = SUBGOALS_PER_GOAL_MAX - state.kin.total;
  for (const [i, place] of draft.nested.entries()) {
    const levels = depthOf(state, draft, place) + 1;
    const fault = i < room ? nestedFault(state, draft.specs[place]!.goal!, rules, base, levels) : tooManySubgoals();
    if (fault !== null) draft.rejected.set(place, fault);
  }
}

/** `levels`: from the tasks of this goal down to those of the goal inside. */
function nestedFault(state: GoalState, goal: Goal, rules: Rules | null, base: number, levels: number): Failure | null {
  if (base + levels > DEPTH_MAX) {
    const detail = `the tasks of this goal would be more than ${DEPTH_MAX} levels deep`;
    return failure("invalid_request", detail, { errors: [{ pointer: "/goal", detail }] });
  }
  if (rules !== null && rules.depth !== null && levels > rules.depth.max) {
    const detail = `${rules.depth.from} does not allow tasks more than ${rules.depth.max} levels deep (rule "maxDepth")`;
    return permissionDenied(detail, "/goal");
  }
  const specs = (goal["tasks"] ?? []) as readonly TaskSpec[];
  if (specs.length === 0) return null;
  const empty: GoalState = { ...newState(), upstreams: state.upstreams, upstreamNumbers: state.upstreamNumbers, runs: state.runs };
  const command = { kind: "submit", specs, failures: new Map(), contentKeys: new Map(), atomic: true } as const;
  const room = (goal["budget"] as NamedAmounts | undefined)?.tasks ?? Number.MAX_SAFE_INTEGER;
  const draft = draftOf(empty, command, rulesBelow(rules, goal["policy"] as Policy | undefined, levels), room, base + levels);
  if (draft.ok) return null;
  const errors = (draft.error.errors ?? []).map(({ pointer, detail }) => ({ pointer: `/goal${pointer}`, detail }));
  const first = errors[0] === undefined ? draft.error.detail : `${errors[0].pointer} ${errors[0].detail}`;
  return failure(draft.error.code, first, { errors });
}

type Goal = Readonly<Record<string, unknown>>;

/** Levels of tasks above the goal's own. */
const baseOf = ({ goal }: GoalState): number => goal?.spec.parent?.depth ?? 0;

function tooManySubgoals(): Failure {
  const detail = `a goal takes at most ${SUBGOALS_PER_GOAL_MAX} tasks of kind goal`;
  return failure("quota_exceeded", detail, { errors: [{ pointer: "/goal", detail }] });
}

function unknownUpstream(name: string): Failure {
  const detail = `there is no upstream "${name}"; register it with PUT /v1/upstreams/${name}`;
  return failure("invalid_request", detail, { errors: [{ pointer: "/call/upstream", detail }] });
}

/** Where the work of the task is. */
const pointerOf = ({ run, work }: TaskSpec): string => (run !== undefined ? "/run" : work === undefined ? "/call" : "/work");

function functionFault(state: GoalState, name: string, mayRun: (name: string) => boolean): Failure | null {
  const refused = (code: "invalid_request" | "quota_exceeded", detail: string): Failure =>
    failure(code, detail, { errors: [{ pointer: "/run/function", detail }] });
  if (!state.runs.versions.has(name))
    return refused("invalid_request", `there is no function "${name}"; register it with PUT /v1/functions/${name}`);
  return mayRun(name) ? null : refused("quota_exceeded", `a goal runs at most ${FUNCTIONS_PER_GOAL_MAX} functions`);
}

/** Whether a goal takes tasks for a queue: each has an entry for as long as the goal lives. */
function entryGuard(state: GoalState, entryName: (name: string) => string, max: number): (name: string) => boolean {
  const fresh = new Set<string>();
  let room = -1;
  return (queue) => {
    if (fresh.has(queue) || upstreamNamed(state, entryName(queue)) >= 0) return true;
    if (room < 0) room = max - state.upstreams.filter(({ name }) => name.startsWith(entryName(""))).length;
    if (fresh.size >= room) return false;
    fresh.add(queue);
    return true;
  };
}

function tooManyQueues(): Failure {
  const detail = `a goal has at most ${WORK_QUEUES_PER_GOAL_MAX} queues of work`;
  return failure("quota_exceeded", detail, { errors: [{ pointer: "/work/queue", detail }] });
}

function isUsable(state: GoalState, name: string): boolean {
  const upstream = upstreamNamed(state, name);
  return upstream >= 0 && state.upstreams[upstream]!.config !== null;
}

function atomicFailure(rejected: ReadonlyMap<number, Failure>): Failure {
  const errors: Fault[] = [];
  for (const [place, fault] of [...rejected].toSorted(([a], [b]) => a - b)) {
    for (const { pointer, detail } of fault.errors ?? [{ pointer: "", detail: fault.detail }]) {
      if (errors.length < FAULTS_IN_ANSWER_MAX) errors.push({ pointer: `/tasks/${place}${pointer}`, detail });
    }
  }
  const [first] = rejected.values();
  if (first?.code === "budget_exhausted") return first;
  const isForbidden = [...rejected.values()].every(({ code }) => code === "permission_denied");
  const detail = `${rejected.size} of the tasks cannot be taken, so none was`;
  return failure(isForbidden ? "permission_denied" : "invalid_request", detail, { errors });
}

/** Adds what the draft accepts. `policies` are those of the token that the request came with. */
export function take(
  rec: Recorder,
  { specs, contentKeys, within, outlooks = new Map() }: Submit,
  draft: Draft,
  policies: readonly Policy[],
): Receipts {
  const { state } = rec;
  const first = state.tasks.n;
  const tasks = new Int32Array(specs.length).fill(-1);
  const joins = new Uint8Array(specs.length);
  const skipped: number[] = [];
  const keys: [number, string][] = [];
  let next = first;
  let joined = 0;
  const isPlain = draft.joins.size === 0 && draft.rejected.size === 0 && contentKeys.size === 0;
  for (let place = 0; place < specs.length; place++) {
    if (isPlain) {
      tasks[place] = next++;
      continue;
    }
    const target = draft.joins.get(place);
    if (target !== undefined) joinTo(draft, place, target, tasks);
    if (target !== undefined || draft.rejected.has(place)) {
      skipped.push(place);
      if (tasks[place]! >= 0) {
        joins[place] = 1;
        joined++;
      }
      continue;
    }
    tasks[place] = next++;
    const derived = contentKeys.get(place);
    if (derived !== undefined) keys.push([place, derived]);
  }
  const estimator = estimatorOf(state, rec.nowMs, outlooks);
  const offer = within?.offer ?? state.nextOffer;
  if (next === first && joined > 0) rec.join(joined);
  if (next > first) {
    // In a goal's first request a place is a task's number.
    const index = isPlain && first === 0 ? draft.places : undefined;
    const approvals = draft.approvals.filter((place) => !draft.rejected.has(place));
    const base = within === undefined ? {} : { base: within.base };
    const rights = { ...(approvals.length > 0 && { approvals }), ...(policies.length > 0 && { policies }) };
    rec.add(specs, { kind: "tasks.added", offer, atMs: rec.nowMs, size: specs.length, ...base, skipped, joined, keys, ...rights }, index);
    if (draft.linked.length > 0) cancelUnmeetable(rec, first);
    noteWarms(rec, first);
  }
  const { position, startMs } = next > first && isCall(state, first) ? estimator.peek(state.tasks.upstream[first]!) : NOW;
  return {
    accepted: next - first,
    joined,
    rejected: draft.rejected,
    tasks,
    joins,
    position,
    estimatedStartMs: startMs,
    estimator,
    offer: next > first ? offer : 0,
  };
}

/** Says which functions the new tasks, from `first` on, are of. */
function noteWarms({ state, out }: Recorder, first: number): void {
  const { tasks, upstreams, runs } = state;
  if (runs.versions.size === 0) return;
  const counts = new Map<number, number>();
  for (let task = first; task < tasks.n; task++) {
    if ((tasks.flags[task]! & RUN) !== 0) counts.set(tasks.upstream[task]!, (counts.get(tasks.upstream[task]!) ?? 0) + 1);
  }
  for (const [queue, count] of counts) out.warms.push([functionNameOf(upstreams[queue]!), count]);
}

const NOW = { position: 0, startMs: 0 };
const isCall = ({ tasks }: GoalState, task: number): boolean => (tasks.flags[task]! & GROUP) === 0;

/** The first of equal keys has its number by now, unless it was rejected: then so is this one. */
function joinTo(draft: Draft, place: number, target: number | string, tasks: Int32Array): void {
  if (typeof target === "number") {
    tasks[place] = target;
    return;
  }
  const original = draft.places.get(target)!;
  const fault = draft.rejected.get(original);
  if (fault === undefined) tasks[place] = tasks[original]!;
  else draft.rejected.set(place, fault);
}

/** A task that comes after one that has already failed ends as it is added. */
function cancelUnmeetable(rec: Recorder, first: number): void {
  const ended: number[] = [];
  const { tasks } = rec.state;
  for (let task = first; task < tasks.n; task++) {
    if ((tasks.flags[task]! & DEPENDENCY_FAILED) !== 0) freeDependent(rec, task, ended);
  }
  cascade(rec, ended);
}
