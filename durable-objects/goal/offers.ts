/**
 * Offers: the bodies of requests that brought tasks, kept as they came and
 * parsed when needed. A bounded cache holds the ones that are being sent.
 */
import { assert } from "../../shared/assert.ts";
import { type Failure, failure } from "../../shared/errors.ts";
import { DEPTH_MAX, OFFER_CACHE_BYTES_MAX, TASKS_PER_REQUEST_MAX } from "../../shared/limits.ts";
import type { CallSpec, RunSpec, TaskSpec, WorkSpec } from "../../shared/protocol/task.ts";
import { err, ok, type Result } from "../../shared/result.ts";
import { runQueueName } from "./core/run-state.ts";

/** `array`: a JSON array of tasks. `json`: an object with one. `ndjson`: a task a line. */
export type OfferFormat = "array" | "json" | "ndjson";

const envelope = (detail: string, pointer = ""): Result<never, Failure> =>
  err(failure("invalid_request", detail, { errors: [{ pointer, detail }] }));

/** Reads the envelope of a body; its tasks are checked one by one, later. */
export function parseOffer(body: Uint8Array, format: OfferFormat): Result<readonly unknown[], Failure> {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(body);
  } catch {
    return envelope("the body is not UTF-8");
  }
  const parsed = format === "ndjson" ? parseLines(text) : parseDocument(text, format);
  if (parsed.ok && parsed.value.length > TASKS_PER_REQUEST_MAX) {
    return err(
      failure("payload_too_large", `a request takes at most ${TASKS_PER_REQUEST_MAX} tasks, and this one has ${parsed.value.length}`),
    );
  }
  return parsed;
}

function parseDocument(text: string, format: "array" | "json"): Result<readonly unknown[], Failure> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return envelope(`the body is not JSON: ${(error as Error).message}`);
  }
  if (format === "array") {
    assert(Array.isArray(value), "the edge hands inline tasks over as an array");
    return ok(value);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return envelope('the body must be an object: {"tasks": [ … ]}');
  const { tasks, ...rest } = value as { tasks?: unknown };
  const unknown = Object.keys(rest)[0];
  if (unknown !== undefined) return envelope(`"${unknown}" is not known here; the body takes "tasks" only`, `/${unknown}`);
  return Array.isArray(tasks) ? ok(tasks) : envelope('"tasks" must be an array of tasks', "/tasks");
}

function parseLines(text: string): Result<readonly unknown[], Failure> {
  const tasks: unknown[] = [];
  const lines = text.split("\n");
  for (const [number, line] of lines.entries()) {
    if (line.trim() === "") continue;
    try {
      tasks.push(JSON.parse(line));
    } catch (error) {
      return envelope(`line ${number + 1} is not JSON: ${(error as Error).message}`);
    }
  }
  return ok(tasks);
}

/** The upstreams that a request's tasks call, and the queues of functions that they run. Neighbours mostly call the same one. */
export function entryNames(specs: readonly unknown[], names = new Set<string>(), level = 0): Set<string> {
  let last: unknown;
  for (const spec of specs) {
    const inner = (spec as TaskSpec | null)?.goal?.["tasks"];
    if (Array.isArray(inner) && level < DEPTH_MAX) entryNames(inner, names, level + 1);
    const name = (spec as TaskSpec | null)?.call?.upstream as unknown;
    if (name === undefined) addFunction(spec, names);
    if (name === last || typeof name !== "string") continue;
    names.add(name);
    last = name;
  }
  return names;
}

function addFunction(spec: unknown, names: Set<string>): void {
  const name = (spec as TaskSpec | null)?.run?.function as unknown;
  if (typeof name === "string") names.add(runQueueName(name));
}

type Input = CallSpec | RunSpec | WorkSpec | Json | undefined;
type Json = Readonly<Record<string, unknown>>;

interface Entry {
  /** The call, run, work or goal of each task, by place: all that handing it out needs. Groups and bad tasks have none. */
  readonly inputs: readonly Input[];
  readonly bytes: number;
}

/** An offer as it is kept in memory. Labels and the like stay on disk: what survives in memory has to be collected. */
export function entryOf(specs: readonly unknown[], bytes: number): Entry {
  return { inputs: specs.map((spec) => inputOf(spec as TaskSpec | null)), bytes };
}

const inputOf = (spec: TaskSpec | null): Input => spec?.call ?? spec?.run ?? spec?.work ?? spec?.goal;

/** Keeps the inputs of the offers used last, up to a bound in bytes of their text. The newest always stays. */
export class CallCache {
  readonly #load: (offer: number) => Entry;
  readonly #entries = new Map<number, Entry>();
  #bytes = 0;
  #newest = 0;

  constructor(load: (offer: number) => Entry) {
    this.#load = load;
  }

  put(offer: number, entry: Entry): void {
    this.#drop(offer);
    this.#entries.set(offer, entry);
    this.#newest = offer;
    this.#bytes += entry.bytes;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= OFFER_CACHE_BYTES_MAX || oldest === offer) break;
      this.#drop(oldest);
    }
  }

  /** Of a task that calls. */
  get(offer: number, place: number): CallSpec | undefined {
    return this.#get(offer, place) as CallSpec | undefined;
  }

  /** Of a task that runs a function. */
  run(offer: number, place: number): RunSpec | undefined {
    return this.#get(offer, place) as RunSpec | undefined;
  }

  /** Of a task that waits to be claimed. */
  work(offer: number, place: number): WorkSpec | undefined {
    return this.#get(offer, place) as WorkSpec | undefined;
  }

  /** Of a task whose work is a goal of its own. */
  goal(offer: number, place: number): Json | undefined {
    return this.#get(offer, place) as Json | undefined;
  }

  #get(offer: number, place: number): Input {
    const cached = this.#entries.get(offer);
    // Tasks of one offer are asked for in a row; only a change of offer is worth noting.
    if (cached !== undefined && offer === this.#newest) return cached.inputs[place];
    const entry = cached ?? this.#load(offer);
    this.put(offer, entry);
    return entry.inputs[place];
  }

  /** Forgets all; each can be read again. */
  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #drop(offer: number): void {
    const entry = this.#entries.get(offer);
    if (entry === undefined) return;
    this.#entries.delete(offer);
    this.#bytes -= entry.bytes;
  }
}
