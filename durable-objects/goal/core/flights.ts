/**
 * Tasks that coalesce, by what makes them equal. One of a group is its captain:
 * it asks for the lead over all goals, and makes the call once it has it. The
 * others wait, hold no permit and reserve nothing, and get its result. Only
 * what follows from a fact is carried out here; `flight-turn.ts` decides.
 */
import { hexOf } from "../../../shared/bytes.ts";
import { contentOf } from "../../../shared/protocol/canonical.ts";
import type { FlightEnd } from "../../../shared/protocol/flight.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import { hmacSha256, KEY_BYTES } from "../../../shared/token/hmac.ts";
import { asciiBytes, canonicalJson } from "../../../shared/token/text.ts";
import { contents } from "./queue.ts";
import type { GoalState } from "./state.ts";

export interface Group {
  captain: number;
  /** In the order in which they came. */
  readonly crew: Set<number>;
  /** The captain makes the call, for all goals. */
  isLeading: boolean;
  /** Captains in a row that failed. */
  failures: number;
}

/** What is to be told of a key that the goal has no more to do with. */
export type Word = { readonly payload: string } | { readonly how: Extract<FlightEnd, { how: string }>["how"] };

export interface GoalFlights {
  /** Distinct keys, and their numbers by their text. */
  readonly keys: string[];
  readonly numbers: Map<string, number>;
  /** Task to the number of its key, for as long as it coalesces. */
  readonly of: Map<number, number>;
  /** By the number of the key. */
  readonly groups: Map<number, Group>;
  /** None of what follows is durable: it is said again, or a shard finds out by itself. */
  readonly soft: Soft;
}

/** Where the exchange with the shards stands. */
interface Soft {
  /** Keys by number of which a shard has to hear something new. */
  readonly fresh: Set<number>;
  readonly words: Map<number, Word>;
  /** Keys of which a shard knows that the goal wants them. */
  readonly told: Set<number>;
  readonly talks: Map<number, { isAsking: boolean; restUntilMs: number }>;
  /** When all was said last. */
  wholeAtMs: number;
  /** Numbers of keys by the text of the call, while an offer is taken: its tasks are often equal. */
  readonly recent: Map<string, number>;
}

export interface FlightsImage {
  readonly keys: readonly string[];
  readonly of: readonly (readonly [number, number])[];
  readonly groups: readonly (readonly [number, Omit<Group, "crew"> & { readonly crew: readonly number[] }])[];
}

export type FlightsChange =
  /** The captains of these keys make the call. */
  | { readonly kind: "flights.led"; readonly keys: readonly number[]; readonly atMs: number }
  /** The captains of these keys, who wait for their turn to call, ask for the lead anew. */
  | { readonly kind: "flights.grounded"; readonly keys: readonly number[] }
  /** The tasks with this key each make a call of their own. */
  | { readonly kind: "flights.parted"; readonly key: number; readonly atMs: number };

export function newFlights(): GoalFlights {
  const soft = { fresh: new Set<number>(), words: new Map(), told: new Set<number>(), talks: new Map(), wholeAtMs: 0, recent: new Map() };
  return { keys: [], numbers: new Map(), of: new Map(), groups: new Map(), soft };
}

export function flightsImage({ keys, of, groups }: GoalFlights): FlightsImage {
  return { keys, of: [...of], groups: [...groups].map(([key, { crew, ...rest }]) => [key, { ...rest, crew: [...crew] }] as const) };
}

export function flightsFrom({ keys, of, groups }: FlightsImage): GoalFlights {
  const flights = newFlights();
  for (const key of keys) flights.numbers.set(key, flights.keys.push(key) - 1);
  for (const [task, key] of of) flights.of.set(task, key);
  for (const [key, { crew, ...rest }] of groups) {
    flights.groups.set(key, { ...rest, crew: new Set(crew) });
    flights.soft.fresh.add(key);
  }
  return flights;
}

// A keyed hash with a key that everybody knows is a hash.
const NO_KEY = new Uint8Array(KEY_BYTES);

/** Notes that a new task coalesces. */
export function declareFlight(state: GoalState, task: number, spec: TaskSpec): void {
  const { flights } = state;
  const { recent } = flights.soft;
  const raw = JSON.stringify([spec.call, spec.run]);
  let key = recent.get(raw);
  if (key === undefined) {
    const version = spec.run === undefined ? "" : (state.runs.versions.get(spec.run.function)?.version ?? "");
    const text = hexOf(hmacSha256(NO_KEY, asciiBytes(canonicalJson([contentOf(spec), version]))));
    key = flights.numbers.get(text);
    if (key === undefined) flights.numbers.set(text, (key = flights.keys.push(text) - 1));
    recent.set(raw, key);
  }
  flights.of.set(task, key);
}

/** Whether the task waits for the lead, or for an equal one. */
export function isGrounded({ flights }: GoalState, task: number): boolean {
  const key = flights.of.size === 0 ? undefined : flights.of.get(task);
  if (key === undefined) return false;
  const group = flights.groups.get(key);
  return group === undefined || group.captain !== task || !group.isLeading;
}

/** The task has come to wait. */
export function joinFlight({ flights }: GoalState, task: number): void {
  const key = flights.of.get(task)!;
  const group = flights.groups.get(key);
  if (group !== undefined) {
    if (group.captain !== task) group.crew.add(task);
    return;
  }
  flights.groups.set(key, { captain: task, crew: new Set(), isLeading: false, failures: 0 });
  flights.soft.fresh.add(key);
}

/** The task waits for nobody any more, and nobody for it. */
export function leaveFlight({ flights }: GoalState, task: number, hasFailed: boolean): void {
  const key = flights.of.get(task);
  if (key === undefined) return;
  flights.of.delete(task);
  const group = flights.groups.get(key);
  if (group === undefined || group.crew.delete(task) || group.captain !== task) return;
  const { soft } = flights;
  if (hasFailed) group.failures++;
  if (hasFailed && soft.told.has(key)) soft.words.set(key, { how: "failed" });
  group.isLeading = false;
  const [next] = group.crew;
  if (next === undefined) {
    flights.groups.delete(key);
    if (soft.told.has(key) && !soft.words.has(key)) soft.words.set(key, { how: "left" });
  } else {
    group.captain = next;
    group.crew.delete(next);
  }
  soft.fresh.add(key);
}

/** Those who get the task's result with it. */
export function crewOf({ flights }: GoalState, task: number): readonly number[] {
  const key = flights.of.size === 0 ? undefined : flights.of.get(task);
  const group = key === undefined ? undefined : flights.groups.get(key);
  return group?.captain === task ? [...group.crew] : NOBODY;
}

const NOBODY: readonly number[] = [];

/** Takes queued captains out of their queues, all at once. */
function ground(state: GoalState, keys: readonly number[]): void {
  const { flights, tasks, upstreams } = state;
  const grounded = new Set<number>();
  for (const key of keys) {
    const group = flights.groups.get(key)!;
    group.isLeading = false;
    grounded.add(group.captain);
    flights.soft.fresh.add(key);
  }
  for (const queue of new Set([...grounded].map((task) => upstreams[tasks.upstream[task]!]!.ready[tasks.priority[task]!]!))) {
    queue.items = contents(queue).filter((task) => !grounded.has(task));
    queue.head = 0;
  }
}

/** Carries a fact out. `release` lets a task go on, `wait` has it wait for the lead. */
export function applyFlights(
  state: GoalState,
  change: FlightsChange,
  { release, wait }: { readonly release: (task: number) => void; readonly wait: (task: number) => void },
): void {
  const { flights } = state;
  if (change.kind === "flights.grounded") {
    ground(state, change.keys);
    for (const key of change.keys) wait(flights.groups.get(key)!.captain);
    return;
  }
  if (change.kind === "flights.led") {
    for (const key of change.keys) {
      const group = flights.groups.get(key)!;
      group.isLeading = true;
      release(group.captain);
    }
    return;
  }
  const { captain, crew } = flights.groups.get(change.key)!;
  flights.groups.delete(change.key);
  for (const task of [captain, ...crew]) {
    flights.of.delete(task);
    release(task);
  }
}
