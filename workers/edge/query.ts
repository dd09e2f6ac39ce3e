/**
 * Query parameters, read with their bounds. Faults are gathered, so one answer
 * names them all; an empty parameter counts as absent.
 */
import { type Failure, type Fault, failure } from "../../shared/errors.ts";
import { KEY_CHARS_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX } from "../../shared/limits.ts";
import type { EdgeContext } from "./context.ts";

/** A label's name and value, with the sign between them, is the longest that is asked for. */
const TEXT_CHARS_MAX = 2 * KEY_CHARS_MAX;

const SHOWN_CHARS_MAX = 64;

export class Query {
  readonly #c: EdgeContext;
  readonly #known = new Set<string>();
  readonly #faults: Fault[] = [];

  constructor(c: EdgeContext) {
    this.#c = c;
  }

  #read(name: string): string | undefined {
    this.#known.add(name);
    return this.#c.req.query(name) || undefined;
  }

  fault(name: string, detail: string): void {
    this.#faults.push({ pointer: `?${name}`, detail });
  }

  text(name: string): string | undefined {
    const text = this.#read(name);
    if (text !== undefined && text.length > TEXT_CHARS_MAX) this.fault(name, `must have at most ${TEXT_CHARS_MAX} characters`);
    return text;
  }

  integer(name: string, min: number, max: number, fallback: number): number {
    const text = this.#read(name);
    if (text === undefined) return fallback;
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    this.fault(name, `must be a whole number from ${min} to ${max}`);
    return fallback;
  }

  limit(): number {
    return this.integer("limit", 1, PAGE_ITEMS_MAX, PAGE_ITEMS_DEFAULT);
  }

  flag(name: string): boolean {
    return this.choice(name, ["true", "false"]) === "true";
  }

  choice<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const text = this.#read(name);
    const chosen = choices.find((choice) => choice === text);
    if (text !== undefined && chosen === undefined) this.fault(name, `must be one of ${choices.join(", ")}`);
    return chosen;
  }

  /** The failure to answer with, or null where every parameter was fine. Ask it after reading them all. */
  failure(): Failure | null {
    for (const name of Object.keys(this.#c.req.query())) {
      if (!this.#known.has(name)) this.fault(name.slice(0, SHOWN_CHARS_MAX), `is not known here; ${[...this.#known].join(", ")} are`);
    }
    if (this.#faults.length === 0) return null;
    return failure("invalid_request", "the query is not valid; see errors", { errors: this.#faults });
  }
}
