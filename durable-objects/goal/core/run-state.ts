/**
 * What a goal knows of functions: their versions, and which of them wait for
 * budget. Tasks of kind `run` wait in an entry of their own for each function,
 * `run:<name>`, which no upstream can be called. Nothing here decides anything.
 */
import { type Account, type Amounts, available, CALLS, COST, DIMENSIONS, NOTHING, TOKENS } from "../../../shared/policy/account.ts";
import { countApart } from "../../../shared/policy/histogram.ts";
import type { FunctionVersion, RunTimes } from "../../../shared/protocol/function.ts";
import { countUsage } from "./reserve.ts";
import type { GoalState, UpstreamState } from "./state.ts";

const PREFIX = "run:";

export const runQueueName = (name: string): string => PREFIX + name;
export const isRunQueue = ({ name }: UpstreamState): boolean => name.startsWith(PREFIX);
/** The function of a queue. */
export const functionNameOf = ({ name }: UpstreamState): string => name.slice(PREFIX.length);

/** A function whose run could not afford a call. */
export interface Starved {
  /** What was available then: another run is tried once there is more in some dimension. */
  readonly had: Amounts;
  /** Tries in a row that came to the same end. */
  readonly tries: number;
}

export interface Runs {
  /** The newest version of each function, by name. */
  readonly versions: Map<string, FunctionVersion>;
  /** By queue. */
  readonly starved: Map<number, Starved>;
  /** What was available when something last could not be reserved. Not kept on disk: without it a run more may be in vain, or one less be tried. */
  refusal: { readonly amounts: Amounts; readonly atMs: number } | null;
  /** How long runs took that nobody has been told of: counts by bucket, by queue. Not kept on disk, as nothing is decided by them. */
  readonly times: Map<number, Map<number, number>>;
}

export interface RunsImage {
  readonly versions: readonly FunctionVersion[];
  readonly starved: readonly (readonly [number, Starved])[];
}

export type RunsChange =
  /** A run could not afford a call; null once one has come to another end. */
  | { readonly kind: "runs.starved"; readonly queue: number; readonly starved: Starved | null }
  /** task, calls, tokens, costMicros: what the calls of a run used, which were charged one by one. */
  | { readonly kind: "runs.used"; readonly rows: number[] };

export const newRuns = (): Runs => ({ versions: new Map(), starved: new Map(), refusal: null, times: new Map() });

export const runsImage = ({ versions, starved }: Runs): RunsImage => ({ versions: [...versions.values()], starved: [...starved] });

export function runsFrom({ versions, starved }: RunsImage): Runs {
  return { ...newRuns(), versions: new Map(versions.map((version) => [version.name, version])), starved: new Map(starved) };
}

export function setFunctions({ runs: { versions } }: GoalState, functions: readonly FunctionVersion[]): void {
  versions.clear();
  for (const version of functions) versions.set(version.name, version);
}

const USED_WIDTH = 4;

export function applyRuns(state: GoalState, change: RunsChange): void {
  if (change.kind === "runs.starved") {
    if (change.starved === null) state.runs.starved.delete(change.queue);
    else state.runs.starved.set(change.queue, change.starved);
    return;
  }
  const { rows } = change;
  for (let i = 0; i < rows.length; i += USED_WIDTH) noteUsed(state, rows[i]!, rows[i + 1]!, rows[i + 2]!, rows[i + 3]!);
}

export function noteUsed(state: GoalState, task: number, calls: number, tokens: number, costMicros: number): void {
  const amounts: number[] = [0, 0, 0, 0];
  amounts[CALLS] = calls;
  amounts[TOKENS] = tokens;
  amounts[COST] = costMicros;
  countUsage(state, task, amounts);
}

/** The version that a run of the queue would be of now; undefined where the function was deleted, and for other entries. */
export function versionOf({ runs }: GoalState, upstream: UpstreamState): FunctionVersion | undefined {
  return isRunQueue(upstream) ? runs.versions.get(functionNameOf(upstream)) : undefined;
}

/** Whether the goal has heard of the upstream, or of the function of a queue, and neither was deleted. */
export function isKnown({ upstreams, upstreamNumbers, runs }: GoalState, name: string): boolean {
  if (name.startsWith(PREFIX)) return runs.versions.has(name.slice(PREFIX.length));
  const number = upstreamNumbers.get(name);
  return number !== undefined && upstreams[number]!.config !== null;
}

/** What is available, by dimension. */
export const availableIn = (account: Account): Amounts => DIMENSIONS.map((_, d) => available(account, d));

/** Something could not be reserved. */
export function noteRefusal({ runs, budget }: GoalState, atMs: number): void {
  runs.refusal = { amounts: availableIn(budget.account), atMs };
}

/** Whether there is more than there was, in a dimension that was bounded. `extra` is what is taken to be free besides. */
export function hasMore(account: Account, { had }: Starved, extra: Amounts = NOTHING): boolean {
  return had.some((amount, d) => amount < Number.MAX_SAFE_INTEGER && available(account, d) + extra[d]! > amount);
}

/** Counts a run that came to an end of its own. */
export function noteTime({ runs: { times } }: GoalState, queue: number, ms: number): void {
  let counts = times.get(queue);
  if (counts === undefined) times.set(queue, (counts = new Map()));
  countApart(counts, ms);
}

/** Takes what was counted since it was last taken: for each function, pairs of a bucket and its count. */
export function takeTimes({ runs: { times }, upstreams }: GoalState): RunTimes[] {
  const taken = [...times].map(([queue, counts]) => ({ function: functionNameOf(upstreams[queue]!), latencies: [...counts].flat() }));
  times.clear();
  return taken;
}
