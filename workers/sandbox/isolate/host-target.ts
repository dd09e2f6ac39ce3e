/**
 * The host's side of an invocation, as the guest calls it over RPC. The guest
 * is not trusted: what it says is checked here, its asks are counted here, and
 * after the end of the invocation nothing is answered any more.
 */
import { RpcTarget } from "cloudflare:workers";
import type { ErrorCode } from "../../../shared/errors.ts";
import {
  FUNCTION_ASK_CHARS_MAX,
  FUNCTION_ASKS_MAX,
  FUNCTION_ASKS_OPEN_MAX,
  FUNCTION_LOG_CHARS_MAX,
  FUNCTION_LOGS_MAX,
} from "../../../shared/limits.ts";
import { type HostCalls, HostError } from "../types.ts";

const OPS: ReadonlySet<unknown> = new Set(["call", "fetch", "spawn", "results", "lock", "unlock"]);
const LEVELS: ReadonlySet<unknown> = new Set(["debug", "info", "warn", "error"]);

/** `isOver`: the invocation has ended, and the guest must end too. */
export interface AskReply {
  readonly value?: string;
  readonly code?: ErrorCode;
  readonly message?: string;
  readonly isOver?: true;
}

export class HostTarget extends RpcTarget {
  readonly #calls: HostCalls;
  readonly #over = Promise.withResolvers<string>();
  readonly #onOverrun: (limit: string) => void;
  /** The codes that the host gave. A guest can only fail with one of them. */
  readonly #given = new Set<unknown>();
  #asked = 0;
  #open = 0;
  #logged = 0;
  #reason: string | null = null;
  #isClosed = false;

  /** `onOverrun` hears which limit the guest went beyond. */
  constructor(calls: HostCalls, onOverrun: (limit: string) => void) {
    super();
    this.#calls = calls;
    this.#onOverrun = onOverrun;
  }

  /** Guest to host, as the two that follow. */
  async ask(op: unknown, args: unknown): Promise<AskReply> {
    const limit = this.#limitOf(args);
    if (limit !== null && this.#reason === null) {
      this.end(limit);
      this.#onOverrun(limit);
    }
    if (this.#reason !== null) return { isOver: true, message: this.#reason };
    if (!OPS.has(op) || typeof args !== "string")
      return { code: "invalid_request", message: `there is no host call ${String(op).slice(0, 64)}` };
    this.#open++;
    const answer = this.#calls(op as string, args, this.#asked)
      .then(
        (value): AskReply => ({ value }),
        (error: unknown) => this.#refusal(error),
      )
      .finally(() => this.#open--);
    // What is asked is not waited for after the end: the host's own signal ends it.
    return Promise.race([answer, this.#over.promise.then((message): AskReply => ({ isOver: true, message }))]);
  }

  log(level: unknown, text: unknown): void {
    if (this.#isClosed || !LEVELS.has(level) || typeof text !== "string" || ++this.#logged > FUNCTION_LOGS_MAX) return;
    const shown = text.length > FUNCTION_LOG_CHARS_MAX ? `${text.slice(0, FUNCTION_LOG_CHARS_MAX)}…` : text;
    this.#calls("log", JSON.stringify({ level, text: shown }), 0).catch(() => undefined);
  }

  /** Resolves with the reason when the invocation is ended from outside. */
  ended(): Promise<string> {
    return this.#over.promise;
  }

  get isOver(): boolean {
    return this.#reason !== null;
  }

  end(reason: string): void {
    this.#reason ??= reason;
    this.#over.resolve(reason);
  }

  /** Nothing is heard any more. */
  close(): void {
    this.#isClosed = true;
  }

  hasGiven(code: unknown): code is ErrorCode {
    return this.#given.has(code);
  }

  #limitOf(args: unknown): string | null {
    if (++this.#asked > FUNCTION_ASKS_MAX) return `the function asked the host more than ${FUNCTION_ASKS_MAX} times`;
    if (this.#open >= FUNCTION_ASKS_OPEN_MAX) {
      return `the function waits for more than ${FUNCTION_ASKS_OPEN_MAX} host calls at once; await some of them first`;
    }
    if (typeof args === "string" && args.length > FUNCTION_ASK_CHARS_MAX)
      return `a host call has more than ${FUNCTION_ASK_CHARS_MAX} characters`;
    return null;
  }

  #refusal(error: unknown): AskReply {
    if (!(error instanceof HostError)) return { code: "internal", message: "the host call failed" };
    this.#given.add(error.code);
    return { code: error.code, message: error.message };
  }
}
