/** The goal's shared state for callers: values from disk, versions from memory. */
import { failure } from "../../shared/errors.ts";
import { err, ok } from "../../shared/result.ts";
import type { StateValue, StateWrite } from "../../shared/rpc-locks.ts";
import type { Answer, JsonReply } from "../../shared/rpc.ts";
import type { GoalStore } from "./store.ts";
import type { Ask, Turns } from "./turns.ts";

export class StateDesk {
  readonly #turns: () => Turns;
  readonly #store: GoalStore;

  constructor(turns: () => Turns, store: GoalStore) {
    this.#turns = turns;
    this.#store = store;
  }

  read(key: string): Answer<StateValue> {
    const entry = this.#turns().state.shared.entries.get(key);
    if (entry === undefined) return err(failure("not_found", `there is no value under "${key}"`));
    return ok({ version: entry.version, json: this.#store.value(key) });
  }

  /** Answers with `{version}`. */
  write(write: StateWrite, who: Pick<Ask, "bearer" | "idempotency">): Promise<Answer<JsonReply>> {
    const bytes = write.value === null ? 0 : new TextEncoder().encode(write.value).byteLength;
    return this.#turns().run({
      command: { kind: "write-state", ...write, bytes },
      ...who,
      render: ({ version }) => JSON.stringify({ version }),
    });
  }
}
