/**
 * Where running functions come with what they ask of their goal: children,
 * results of other tasks, locks. What is asked in one message is carried out
 * in one turn. What a run has locked is let go when its attempt ends, whatever
 * ended it; where this object does not live to see that, the locks expire.
 */
import { type Failure, failure } from "../../shared/errors.ts";
import { type TaskId, taskIdOf } from "../../shared/ids.ts";
import { BODY_BYTES_MAX, HOST_RESULTS_CHARS_MAX, HOST_RESULTS_MAX, TASKS_PER_REQUEST_MAX } from "../../shared/limits.ts";
import type { TaskSpec } from "../../shared/protocol/task.ts";
import { err, ok } from "../../shared/result.ts";
import type { Answer } from "../../shared/rpc.ts";
import type { GoalAsk } from "../../shared/rpc-functions.ts";
import type { BudgetDesk } from "./budget-desk.ts";
import { resolve } from "./core/add.ts";
import { type Spawned, staleness } from "./core/asks.ts";
import { QUEUED, STATUS_WORDS } from "./core/codes.ts";
import type { GoalState } from "./core/state.ts";
import type { Directory } from "./directory.ts";
import { entryNames, parseOffer } from "./offers.ts";
import { prepare } from "./prepare.ts";
import type { TaskReader } from "./reader.ts";
import type { RunLocks } from "./run-locks.ts";
import type { GoalStore } from "./store.ts";
import type { Turns } from "./turns.ts";

type Json = Readonly<Record<string, unknown>>;

interface Surroundings {
  readonly turns: () => Turns;
  readonly store: GoalStore;
  readonly reader: TaskReader;
  readonly directory: () => Directory;
  readonly budget: BudgetDesk;
  readonly locks: RunLocks;
}

/** Children that one ask brings. */
interface Brood {
  readonly ask: GoalAsk;
  readonly children: readonly unknown[];
}

const NOTHING = "null";
const bad = (detail: string): Answer<never> => err(failure("invalid_request", detail));
const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);

export class AskDesk {
  readonly #around: Surroundings;

  constructor(around: Surroundings) {
    this.#around = around;
  }

  get #state(): GoalState {
    return this.#around.turns().state;
  }

  /** One answer each, in their order. */
  async ask(asks: readonly GoalAsk[]): Promise<readonly Answer<string>[]> {
    const answers = new Map<GoalAsk, Promise<Answer<string>>>();
    const broods: Brood[] = [];
    for (const ask of asks) {
      const args = argsOf(ask);
      const stale = staleness(this.#state, ask.task, ask.attempt);
      if (stale !== null) answers.set(ask, Promise.resolve(err(stale)));
      else if (!args.ok) answers.set(ask, Promise.resolve(args));
      else if (ask.op === "spawn") {
        const children = childrenOf(args.value, ask, taskIdOf(this.#state.goal!.id, ask.task));
        if (children.ok) broods.push({ ask, children: children.value });
        else answers.set(ask, Promise.resolve(children));
      } else answers.set(ask, this.#serve(ask, args.value));
    }
    for (const group of groupsOf(broods)) {
      const spawned = this.#spawn(group);
      group.forEach(({ ask }, i) =>
        answers.set(
          ask,
          spawned.then((all) => (all.ok ? all.value[i]! : all)),
        ),
      );
    }
    return Promise.all(asks.map((ask) => answers.get(ask)!));
  }

  async #serve(ask: GoalAsk, args: Json): Promise<Answer<string>> {
    const { locks } = this.#around;
    if (ask.op === "results") return this.#results(ask.task, args);
    if (ask.op === "lock") return locks.acquire(ask, args);
    const released = await locks.release(ask, args);
    return released.ok ? ok(NOTHING) : released;
  }

  /** Adds the children of several asks in one turn. */
  async #spawn(broods: readonly Brood[]): Promise<Answer<readonly Answer<string>[]>> {
    const { turns, budget, directory } = this.#around;
    const all = broods.flatMap(({ children }) => children);
    const body = new TextEncoder().encode(JSON.stringify(all));
    const values = parseOffer(body, "array");
    if (!values.ok) return values;
    await directory().refreshFor(this.#state, entryNames(values.value));
    await budget.prepareTasks(values.value.length);
    const spawn = await prepare(values.value);
    let next = 0;
    const asks = broods.map(({ ask: { task, attempt }, children }) => {
      const from = next;
      next += children.length;
      return { task, attempt, range: [from, next] as const };
    });
    let answers: readonly Answer<string>[] = [];
    const reply = await turns().run({
      command: { kind: "spawn", asks, spawn },
      offer: { format: "array", body, specs: values.value },
      render: ({ spawned }) => {
        answers = spawned!.map((one) => this.#receipts(one));
        return "{}";
      },
    });
    return reply.ok ? ok(answers) : reply;
  }

  #receipts(spawned: Spawned): Answer<string> {
    if (!spawned.ok) return err(told(spawned.error));
    const { tasks, joins } = spawned.value;
    const goalId = this.#state.goal!.id;
    const receipts = Array.from(tasks, (task, i) => ({
      taskId: taskIdOf(goalId, task),
      status: joins[i] === 1 ? "joined" : STATUS_WORDS[QUEUED],
    }));
    return ok(JSON.stringify({ receipts }));
  }

  /** Of the tasks that are named; without names, of those that the asking one comes after. */
  #results(task: number, args: Json): Answer<string> {
    const { store, reader } = this.#around;
    const state = this.#state;
    const { offer, position } = state.tasks;
    const { after = [], afterEnd = [] } = args["tasks"] === undefined ? (store.specs(offer[task]!)[position[task]!] as TaskSpec) : {};
    const names = args["tasks"] ?? [...after, ...afterEnd];
    if (!Array.isArray(names) || names.some((name) => typeof name !== "string")) {
      return bad("ctx.results takes a list of ids and keys of tasks, or nothing for those that this one comes after");
    }
    if (names.length > HOST_RESULTS_MAX)
      return bad(`ctx.results takes at most ${HOST_RESULTS_MAX} tasks at a time, and these are ${names.length}`);
    const results: string[] = [];
    let chars = 0;
    for (const name of names as readonly string[]) {
      const found = resolve(state, name);
      if (found < 0) return err(failure("not_found", `there is no task "${name.slice(0, 64)}" in this goal`));
      const { id, key, status, result, problem } = JSON.parse(reader.json(state, found)) as Json;
      const json = JSON.stringify({ taskId: id, key, status, result, problem });
      chars += json.length;
      if (chars > HOST_RESULTS_CHARS_MAX) {
        return err(
          failure("result_too_large", `these results have more than ${HOST_RESULTS_CHARS_MAX} characters; ask for fewer tasks at a time`),
        );
      }
      results.push(json);
    }
    return ok(`{"results":[${results.join(",")}]}`);
  }
}

function argsOf({ op, args }: GoalAsk): Answer<Json> {
  if (args.length > BODY_BYTES_MAX)
    return err(failure("payload_too_large", `what ctx.${op} is given has more than ${BODY_BYTES_MAX} characters`));
  try {
    const value: unknown = JSON.parse(args);
    if (isObject(value)) return ok(value);
  } catch {
    // It is not JSON, as good as any other thing that is no object.
  }
  return bad(`ctx.${op} takes an object`);
}

/** The children as tasks: each is below the asking task, or below another of the same ask, and has a key that a repeated run gives it again. */
function childrenOf({ tasks }: Json, { seq }: GoalAsk, taskId: TaskId): Answer<readonly unknown[]> {
  if (!Array.isArray(tasks)) return bad("ctx.spawn takes a list of tasks");
  if (tasks.length > TASKS_PER_REQUEST_MAX) return bad(`ctx.spawn takes at most ${TASKS_PER_REQUEST_MAX} tasks at a time`);
  const keys = new Set(tasks.map((spec: unknown) => (isObject(spec) ? spec["key"] : undefined)));
  const children: unknown[] = [];
  for (const [place, spec] of (tasks as readonly unknown[]).entries()) {
    if (!isObject(spec)) {
      children.push(spec);
      continue;
    }
    const { parentTaskId = taskId } = spec;
    if (parentTaskId !== taskId && !keys.has(parentTaskId)) {
      return bad(`/tasks/${place}/parentTaskId must be the key of a task in the same spawn; without it, this run is the parent`);
    }
    // What is told apart by its content has a key of that.
    const key = spec["key"] === undefined && spec["dedupe"] !== "content" ? { key: `${taskId}/${seq}/${place}` } : {};
    children.push({ ...spec, ...key, parentTaskId });
  }
  return ok(children);
}

/** As many as an offer takes go together. */
function groupsOf(broods: readonly Brood[]): Brood[][] {
  const groups: Brood[][] = [];
  let count = TASKS_PER_REQUEST_MAX;
  for (const brood of broods) {
    count += brood.children.length;
    if (count > TASKS_PER_REQUEST_MAX) {
      groups.push([]);
      count = brood.children.length;
    }
    groups.at(-1)!.push(brood);
  }
  return groups;
}

/** A handler sees one sentence: the first fault is in it. */
function told({ code, detail, errors = [] }: Failure): Failure {
  const [first] = errors;
  return failure(code, first === undefined ? detail : `${detail}: ${first.pointer.replace("/spawn/", "/tasks/")} ${first.detail}`);
}
