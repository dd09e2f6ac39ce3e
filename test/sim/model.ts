/**
 * What the checkers know of each task from the callers' side alone: the specs
 * that were accepted, who waits for whom, what may be repeated. Nothing here
 * is read from the system's state.
 */
import { parseTaskId } from "../../shared/ids.ts";
import type { CompletionRule, TaskSpec } from "../../shared/protocol/task.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { SettleClaims, Standing } from "../../durable-objects/goal/core/claims.ts";
import type { Executed } from "./shell.ts";

export interface Known {
  readonly spec: TaskSpec;
  readonly upstream: string | null;
  readonly isIdempotent: boolean;
  /** May be open twice at once. */
  readonly isHedgeable: boolean;
  readonly rule: CompletionRule;
  readonly expiresAtMs: number | null;
  parent: number | null;
  after: readonly number[];
  afterEnd: readonly number[];
}

const SAFE = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);

export class Model {
  readonly tasks = new Map<number, Known>();
  readonly keys = new Map<string, number>();
  /** Tasks whose next call a person has asked for. */
  readonly allowedAgain = new Set<number>();
  /** Attempts of claims that were settled with a result, or for good: task and attempt. */
  readonly settled = new Set<string>();
  isPaused = false;
  isSealed = false;
  isCancelAsked = false;
  /** The last that was known of each, also of one that was deleted. */
  readonly #upstreams: Map<string, Upstream>;
  version = 1;

  constructor(upstreams: readonly Upstream[]) {
    this.#upstreams = new Map(upstreams.map((upstream) => [upstream.name, upstream]));
  }

  /** Undefined for what is no upstream. */
  upstream(name: string): Upstream | undefined {
    return this.#upstreams.get(name);
  }

  /** Takes over what a committed command was answered. */
  note({ command, reply }: Executed, nowMs: number): void {
    if (!reply.ok) return;
    switch (command.kind) {
      case "create":
        if (reply.value.receipts === undefined) return;
        this.isSealed = command.spec.sealed;
        this.#register(command.registry);
        return this.#accept(command.tasks.specs, command.tasks.contentKeys, reply.value.receipts, nowMs);
      case "submit":
        return this.#accept(command.specs, command.contentKeys, reply.value.receipts!, nowMs);
      case "settle-claims":
        return this.#spawn(command, reply.value.standings!, nowMs);
      case "retry-task": {
        const original = this.tasks.get(command.task)!;
        this.tasks.set(reply.value.task!, { ...original, after: [], afterEnd: [], expiresAtMs: null, rule: {} });
        return;
      }
      case "resolve":
        if (command.as === "retry") this.allowedAgain.add(command.task);
        return;
      case "pause":
      case "resume":
        this.isPaused = command.kind === "pause";
        return;
      case "seal":
        this.isSealed = true;
        return;
      case "upstreams":
        if (command.version > this.version) this.#register(command);
        return;
      case "cancel":
        this.isCancelAsked = true;
        return;
      default:
        return;
    }
  }

  #register({ version, upstreams }: { readonly version: number; readonly upstreams: readonly Upstream[] }): void {
    this.version = version;
    for (const upstream of upstreams) this.#upstreams.set(upstream.name, upstream);
  }

  #accept(
    specs: readonly (TaskSpec | null)[],
    contentKeys: ReadonlyMap<number, string>,
    { tasks, joins }: { readonly tasks: Int32Array; readonly joins: Uint8Array },
    nowMs: number,
  ): void {
    const taken = specs.flatMap((spec, place) => (spec !== null && tasks[place]! >= 0 && joins[place] === 0 ? [{ spec, place }] : []));
    for (const { spec, place } of taken) {
      const key = spec.key ?? contentKeys.get(place);
      if (key !== undefined) this.keys.set(key, tasks[place]!);
    }
    for (const { spec, place } of taken) this.tasks.set(tasks[place]!, this.#known(spec, nowMs));
  }

  /** A settlement that counts brings its children, whose numbers follow those that there are. */
  #spawn({ settlements, spawn }: SettleClaims, standings: readonly Standing[], nowMs: number): void {
    for (const [i, { task, attempt, status }] of standings.entries()) {
      const name = `${task}.${attempt}`;
      if (status !== "settled" || this.settled.has(name)) continue;
      this.settled.add(name);
      const specs = spawn.specs.slice(...settlements[i]!.spawn);
      const first = this.tasks.size;
      this.#accept(
        specs,
        new Map(),
        { tasks: Int32Array.from(specs, (_, place) => first + place), joins: new Uint8Array(specs.length) },
        nowMs,
      );
    }
  }

  #known(spec: TaskSpec, nowMs: number): Known {
    const { call, ttlMs, parentTaskId } = spec;
    const named = (name: string): number => this.keys.get(name) ?? parseTaskId(name)!.index;
    const upstream = call === undefined ? null : this.upstream(call.upstream);
    const isDeclared = call?.idempotent ?? (upstream?.idempotency === "key" || ["GET", "HEAD"].includes(call?.method ?? "GET"));
    return {
      spec,
      upstream: upstream?.name ?? null,
      isIdempotent: spec.run !== undefined || (call?.idempotent ?? (upstream?.idempotency === "key" || SAFE.has(call?.method ?? "GET"))),
      isHedgeable: call !== undefined && isDeclared && spec.locks === undefined,
      rule: spec.completion ?? {},
      expiresAtMs: ttlMs === undefined ? null : nowMs + ttlMs,
      parent: parentTaskId === undefined ? null : named(parentTaskId),
      after: (spec.after ?? []).map(named),
      afterEnd: (spec.afterEnd ?? []).map(named),
    };
  }
}

/** The verdict of a rule, written a second time: from lists of ends, not from counters. */
export function judged(rule: CompletionRule, members: readonly string[], isClosed: boolean): "open" | "succeeded" | "failed" {
  const bad = members.filter((status) => status === "failed" || status === "expired").length;
  const good = members.filter((status) => status === "succeeded").length;
  const live = members.filter((status) => ["queued", "waiting", "running"].includes(status)).length;
  const nothingComes = isClosed || live === 0;
  if (rule.failFast === true && bad > 0) return "failed";
  if (rule.toleratedFailureCount !== undefined && bad > rule.toleratedFailureCount) return "failed";
  const isTooBad = (bad / Math.max(1, members.length)) * 100 > (rule.toleratedFailurePercentage ?? 100);
  if (isTooBad && nothingComes) return "failed";
  if (rule.minSuccessful !== undefined) {
    if (good >= rule.minSuccessful && !isTooBad) return "succeeded";
    return nothingComes && good + live < rule.minSuccessful ? "failed" : "open";
  }
  if (live > 0) return "open";
  const tolerates = rule.toleratedFailureCount !== undefined || rule.toleratedFailurePercentage !== undefined;
  return bad > 0 && !tolerates ? "failed" : "succeeded";
}
