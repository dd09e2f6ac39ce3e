/**
 * How a goal of the simulated world funds its sub-goals: as the real desk does,
 * which belongs to the incarnation. It asks the account above first where that
 * could help, and tells those who came away with nothing when there is more.
 */
import { requestFor } from "../../../durable-objects/goal/core/afford.ts";
import type { RelativeDone } from "../../../durable-objects/goal/core/relatives.ts";
import { lacksFunds } from "../../../durable-objects/goal/core/reservations.ts";
import { available, availableOf, type Bounds, DIMENSIONS, type FundRequest, isNothing } from "../../../shared/policy/account.ts";
import type { Shell } from "../shell.ts";

export interface Asked {
  readonly goalId: string;
  readonly task: number;
  readonly request: FundRequest;
}

export class Funds {
  readonly #shell: Shell;
  /** Asks the account above for this goal, and calls back when its answer was taken. */
  readonly #askAbove: (request: FundRequest, taken: () => void) => void;
  /** Tells a sub-goal that there is more. */
  readonly #tell: (goalId: string) => void;
  readonly #waiting = new Map<number, { readonly goalId: string; readonly left: readonly number[] }>();
  #news = 0;

  constructor(shell: Shell, askAbove: (request: FundRequest, taken: () => void) => void, tell: (goalId: string) => void) {
    this.#shell = shell;
    this.#askAbove = askAbove;
    this.#tell = tell;
  }

  fund(asked: Asked, answer: (said: RelativeDone) => void): void {
    const { goalId, task, request } = asked;
    const ask = (known: string): void => {
      const heard = (text: string): void => {
        const { funds } = JSON.parse(text) as { funds: Bounds };
        const short = request.need.map((need, d) => Math.max(0, need - (funds[d] ?? need)));
        const now = this.#above();
        if (isNothing(short)) return answer({ funds });
        if (known === now) {
          this.#waiting.set(task, { goalId, left: this.#left() });
          return answer({ funds });
        }
        const { state } = this.#shell;
        if (state.goal!.phase !== "active" || !lacksFunds(state, short)) return ask(now);
        this.#askAbove(requestFor(state.budget.account, short, short), () => ask(now));
      };
      this.#shell.ask({ id: null, command: { kind: "fund-subgoal", goalId, task, request }, answer: heard });
    };
    ask("");
  }

  #above(): string {
    return `${this.#shell.state.budget.account.funds.join()} ${this.#news}`;
  }

  #left(): number[] {
    const { account } = this.#shell.state.budget;
    return DIMENSIONS.flatMap((_, d) => [available(account, d), availableOf(account, d)]);
  }

  /** After each turn. */
  committed(): void {
    const now = this.#left();
    for (const [task, { left }] of this.#waiting) if (now.some((amount, i) => amount > left[i]!)) this.#say(task);
  }

  /** The account above has more. */
  moreFunds(): void {
    this.#news++;
    for (const task of this.#waiting.keys()) this.#say(task);
    this.#shell.ask({ id: null, command: { kind: "ask-again" }, answer: () => undefined });
  }

  #say(task: number): void {
    const { goalId } = this.#waiting.get(task)!;
    this.#waiting.delete(task);
    this.#tell(goalId);
  }
}
