/**
 * What running functions may ask of the world. One host serves a batch: what
 * it has borrowed of the gate is used by all of its runs, and each run is
 * answered and counted by itself. The sandbox has bounded how many asks of a
 * run are open, how many it makes, and how much it logs.
 */
import { type Amounts, CALLS, COST, isNothing, minus, NOTHING, plus, TOKENS } from "../../../shared/policy/account.ts";
import type { CallEnd } from "../../../shared/policy/outcome.ts";
import { usedOf } from "../../../shared/policy/price.ts";
import { type Policy, type Rules, rulesOf } from "../../../shared/policy/rules.ts";
import type { GoalAskRpc, HandsRpc, HandTerms, RunBatch, RunItem } from "../../../shared/rpc-functions.ts";
import type { Cutoff } from "../../kit/cutoff.ts";
import { type Network, PLAIN_NETWORK } from "../../kit/network.ts";
import { type HostCalls, HostError } from "../../sandbox/types.ts";
import { TIMED_OUT } from "../call.ts";
import type { Reach } from "../reach.ts";
import { spanOf, traceparentOf } from "../request.ts";
import { Asks } from "./asks.ts";
import { makeCall } from "./call.ts";
import { Connections } from "./connections.ts";
import { Cords } from "./cords.ts";
import { Hand } from "./hand.ts";
import { type Payment, Purse } from "./purse.ts";
import { type Slice } from "./slice.ts";
import type { FunctionHost, HostUsage } from "./types.ts";
import { objectIn, type WantedCall, wantedCall, wantedFetch } from "./wanted.ts";

export interface HostDeps {
  /** A way to the gate of the batch's goal, new each time; and the name that it gives to governors. */
  readonly gate: () => HandsRpc;
  readonly gateName: string;
  readonly goal: () => GoalAskRpc;
  /** Null where nothing can be said before a call. */
  readonly reach: Reach | null;
  /** Left out: `fetch`. */
  readonly network?: Network | undefined;
}

interface Run {
  readonly item: RunItem;
  readonly cutoff: Cutoff;
  readonly deadlineAtMs: number;
  /** What its calls used that its purse has not paid. */
  usage: Amounts;
  /** What its task has set aside for them; null for nothing. */
  readonly purse: Purse | null;
  /** Of locks that it has taken itself, by their scope and name. */
  readonly fences: Map<string, { readonly name: string; readonly fence: number }>;
}

const LOG_LEVELS: ReadonlySet<unknown> = new Set(["debug", "info", "log", "warn", "error"]);
const NULL = "null";
const SCOPE_DEFAULT = "goal";

/** Of a lock: the same name means another one in the other scope. */
const placeOf = ({ name, scope = SCOPE_DEFAULT }: Readonly<Record<string, unknown>>): string => `${String(scope)}/${String(name)}`;

export function hostOf(batch: RunBatch, deps: HostDeps): FunctionHost {
  return new Host(batch, deps);
}

class Host implements FunctionHost {
  readonly #batch: RunBatch;
  readonly #deps: HostDeps;
  readonly #hand: Hand;
  readonly #asks: Asks;
  readonly #connections = new Connections();
  readonly #cords = new Cords(TIMED_OUT);
  readonly #runs = new Map<RunItem, Run>();
  readonly #calls = new Set<Promise<unknown>>();
  /** The check of the last terms, by what the tokens behind the runs may. */
  #rules: { terms: HandTerms; compiled: Map<readonly Policy[] | undefined, Rules | null> } | null = null;

  constructor(batch: RunBatch, deps: HostDeps) {
    this.#batch = batch;
    this.#deps = deps;
    const waitMs = Math.max(0, ...batch.items.map(({ timeoutMs }) => timeoutMs));
    this.#hand = new Hand(deps.gate, { gate: deps.gateName, goalId: batch.goalId, waitMs }, batch.items.length);
    this.#asks = new Asks(deps.goal);
  }

  callsOf(item: RunItem, cutoff: Cutoff): HostCalls {
    const run: Run = {
      item,
      cutoff,
      deadlineAtMs: Date.now() + item.timeoutMs,
      usage: NOTHING,
      purse: item.reserve === undefined ? null : new Purse(item.reserve),
      fences: new Map(),
    };
    this.#runs.set(item, run);
    return (op, args, seq) => this.#answer(run, op, args, seq);
  }

  usageOf(item: RunItem): HostUsage {
    const { usage = NOTHING, purse = null } = this.#runs.get(item) ?? {};
    const used = { calls: usage[CALLS]!, tokens: usage[TOKENS]!, costMicros: usage[COST]! };
    const drawn = purse?.close() ?? NOTHING;
    return isNothing(drawn) ? used : { ...used, drawn };
  }

  /** Nobody hears what is still open: it is cut off. */
  async end(): Promise<void> {
    for (const { cutoff } of this.#runs.values()) cutoff.end("the batch has ended");
    await Promise.allSettled(this.#calls);
    this.#cords.end();
    await this.#hand.end();
  }

  async #answer(run: Run, op: string, args: string, seq: number): Promise<string> {
    try {
      return await this.#serve(run, op, args, seq);
    } catch (error) {
      if (error instanceof HostError) throw error;
      console.warn(JSON.stringify({ event: "function.host_failed", op, taskId: run.item.taskId, error: String(error) }));
      throw new HostError("temporary_reduced_capacity", `the call of ctx.${op} could not be served; another attempt may`);
    }
  }

  async #serve(run: Run, op: string, args: string, seq: number): Promise<string> {
    switch (op) {
      case "call":
        return this.#call(run, wantedCall(args), seq);
      case "fetch":
        return this.#call(run, await wantedFetch(args, (origin) => this.#hand.upstreamAt(origin)), seq);
      case "spawn":
      case "results":
        return this.#ask(run, op, args, seq);
      case "lock":
        return this.#lock(run, args, seq);
      case "unlock":
        run.fences.delete(placeOf(objectIn(args, "ctx.unlock")));
        return this.#ask(run, op, args, seq);
      case "log":
        return this.#log(run, args);
      default:
        throw new HostError("invalid_request", `there is no ctx.${op}`);
    }
  }

  #ask({ item: { task, attempt } }: Run, op: "spawn" | "results" | "lock" | "unlock", args: string, seq: number): Promise<string> {
    return this.#asks.ask({ task, attempt, op, seq, args });
  }

  async #lock(run: Run, args: string, seq: number): Promise<string> {
    const answer = await this.#ask(run, "lock", args, seq);
    const lock = objectIn(args, "ctx.lock");
    run.fences.set(placeOf(lock), { name: lock["name"] as string, fence: (JSON.parse(answer) as { fence: number }).fence });
    return answer;
  }

  #call(run: Run, call: WantedCall, seq: number): Promise<string> {
    const slice: Slice = this.#hand.sliceOf(call.upstream);
    const made = makeCall(
      {
        network: this.#deps.network ?? PLAIN_NETWORK,
        reach: this.#deps.reach,
        connections: this.#connections,
        cords: this.#cords,
        slice,
        rulesOf: (terms) => this.#rulesOf(terms, run.item.policies),
        headers: this.#headersOf(run, seq),
        cutoff: run.cutoff,
        deadlineAtMs: run.deadlineAtMs,
        purse: run.purse,
        charge: (price, payment, end) => charge(run, price, payment, end),
        during: (work) => this.#during(work),
      },
      call,
      `${run.item.taskId}.${call.key ?? seq}`,
    );
    this.#during(made);
    return made;
  }

  /** What is under way is waited for at the batch's end. */
  #during(work: Promise<unknown>): void {
    this.#calls.add(work);
    const forget = (): boolean => this.#calls.delete(work);
    work.then(forget, forget);
  }

  #rulesOf(terms: HandTerms, own: readonly Policy[] | undefined): Rules | null {
    if (this.#rules?.terms !== terms) this.#rules = { terms, compiled: new Map() };
    const { compiled } = this.#rules;
    let rules = compiled.get(own);
    if (rules === undefined) {
      const { tenantPolicy, goalPolicies } = terms;
      rules = rulesOf([
        { from: "the tenant's policy", policies: tenantPolicy === null ? [] : [tenantPolicy] },
        { from: "the goal's policy", policies: goalPolicies },
        { from: "the token", policies: own ?? [] },
      ]);
      compiled.set(own, rules);
    }
    return rules;
  }

  #headersOf({ item, fences }: Run, seq: number): Record<string, string> {
    const { goalId, traceId } = this.#batch;
    const { taskId, task, attempt, fence } = item;
    const own = fence === undefined ? [] : fence.split(", ");
    const taken = [...fences.values()].map(({ name, fence: number }) => `${name}=${number}`);
    const all = [...new Set([...own, ...taken])];
    return {
      "drover-goal": goalId,
      "drover-task": taskId,
      "drover-attempt": `${attempt}`,
      traceparent: traceparentOf(traceId, spanOf(task, attempt, seq)),
      ...(all.length > 0 && { "drover-fence": all.join(", ") }),
    };
  }

  #log(run: Run, args: string): string {
    const { level, text } = objectIn(args, "ctx.log");
    const { goalId, function: fn } = this.#batch;
    const { taskId, attempt } = run.item;
    const about = { event: "function.log", level: LOG_LEVELS.has(level) ? level : "log", function: fn.name, goalId, taskId, attempt };
    console.log(JSON.stringify({ ...about, text: String(text) }));
    return NULL;
  }
}

/** Counts what the try is charged, to the run's purse or to the goal: what the answer said, or what was set aside for it. */
function charge(run: Run, price: Amounts, payment: Payment | null, end: CallEnd): void {
  const used = usedOf(price, end);
  const byPurse = used.map((amount, d) => (payment?.covered[d] === true ? amount : 0));
  run.usage = plus(run.usage, minus(used, byPurse));
  payment?.settle(byPurse);
}
