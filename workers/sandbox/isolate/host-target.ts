/**
 * The host's side of an invocation, as the guest calls it over RPC. The guest
 * is not trusted: what it says is checked here, the host counts its asks
 * itself, and after the end of the invocation nothing is answered any more.
 */
import { RpcTarget } from "cloudflare:workers";
import type { ErrorCode } from "../../../shared/errors.ts";
import { type HostCalls, HostError } from "../types.ts";

const OPS: ReadonlySet<unknown> = new Set(["call", "fetch", "spawn", "results", "lock", "unlock", "log"]);

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
  /** The codes that the host gave. A guest can only fail with one of them. */
  readonly #given = new Set<unknown>();
  #seq = 0;
  #reason: string | null = null;

  constructor(calls: HostCalls) {
    super();
    this.#calls = calls;
  }

  async ask(op: unknown, args: unknown): Promise<AskReply> {
    if (this.#reason !== null) return { isOver: true, message: this.#reason };
    if (!OPS.has(op) || typeof args !== "string") return { code: "invalid_request", message: `there is no host call ${String(op)}` };
    const answer = this.#calls(op as string, args, ++this.#seq).then(
      (value): AskReply => ({ value }),
      (error: unknown) => this.#refusal(error),
    );
    // What is asked is not waited for after the end: the host's own signal ends it.
    return Promise.race([answer, this.#over.promise.then((message): AskReply => ({ isOver: true, message }))]);
  }

  /** Resolves with the reason when the invocation is ended from outside. */
  ended(): Promise<string> {
    return this.#over.promise;
  }

  end(reason: string): void {
    this.#reason ??= reason;
    this.#over.resolve(reason);
  }

  hasGiven(code: unknown): code is ErrorCode {
    return this.#given.has(code);
  }

  #refusal(error: unknown): AskReply {
    const code = error instanceof HostError ? error.code : "internal";
    this.#given.add(code);
    return { code, message: error instanceof Error ? error.message : String(error) };
  }
}
