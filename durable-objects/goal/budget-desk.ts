/**
 * The goal's budget toward the outside: callers who add to it or reserve a part
 * of it, and the account above, which is asked for funds in the background, or
 * before a caller is refused for want of them.
 */
import { type Failure, failure } from "../../shared/errors.ts";
import type { Amounts, Bounds, FundRequest } from "../../shared/policy/account.ts";
import { named, NOTHING } from "../../shared/policy/account.ts";
import type { BudgetView } from "../../shared/protocol/budget.ts";
import type { Reserver } from "../../shared/protocol/budget.ts";
import { err, ok } from "../../shared/result.ts";
import type { TabReply, TabRequest } from "../../shared/rpc-functions.ts";
import type { Answer, JsonReply, ReservedFor } from "../../shared/rpc.ts";
import { requestFor } from "./core/afford.ts";
import { canSpare } from "./core/hedges.ts";
import { lacksFunds } from "./core/reservations.ts";
import type { GoalState } from "./core/state.ts";
import type { Ask, Turns } from "./turns.ts";
import { budgetView } from "./views.ts";

/** The account above: the tenant's, or the parent goal's. Null where that one has come to its end. */
export type Above = (goalId: string, request: FundRequest) => Promise<Bounds | null>;

/** Who asks, and under which key. */
type Who = Pick<Ask, "idempotency" | "bearer">;

const NOT_TWICE = "the goal's budget would not last for what waits, so no call is made a second time";

const missing = (): Failure => failure("not_found", "there is no such goal");

export class BudgetDesk {
  readonly #turns: () => Turns;
  readonly #above: Above;

  constructor(turns: () => Turns, above: Above) {
    this.#turns = turns;
    this.#above = above;
  }

  get #state(): GoalState {
    return this.#turns().state;
  }

  /** Asks the account above; a question that fails is asked again by the core. */
  async ask(request: FundRequest): Promise<void> {
    const goalId = this.#state.goal!.id;
    const funds = await this.#above(goalId, request).catch((error: unknown) => {
      console.warn(`the account above ${goalId} gave no answer: ${String(error)}`);
      return null;
    });
    await this.#turns().run({ command: { kind: "funded", need: request.need, funds } });
  }

  /** Where only grants from above are missing for so much, asks for them first. */
  async prepare(amounts: Amounts, wanted = amounts): Promise<void> {
    const state = this.#state;
    if (state.goal?.phase === "active" && lacksFunds(state, amounts)) await this.ask(requestFor(state.budget.account, amounts, wanted));
  }

  /** Before so many tasks are to be taken. */
  async prepareTasks(count: number): Promise<void> {
    if (count > 0) await this.prepare([count, 0, 0, 0]);
  }

  view(): Answer<BudgetView> {
    return this.#state.goal === null ? err(missing()) : ok(budgetView(this.#state));
  }

  topUp(amounts: Amounts, ceilings: Bounds, who: Who): Promise<Answer<JsonReply>> {
    return this.#run({ command: { kind: "top-up", amounts, ceilings }, ...who, render: () => JSON.stringify(budgetView(this.#state)) });
  }

  async reserve(by: Reserver, amounts: Amounts, ttlMs: number, { isSecond = false, ...who }: ReservedFor): Promise<Answer<JsonReply>> {
    // What waits comes first, and no account above is asked for it.
    if (isSecond && !canSpare(this.#state, amounts)) return err(failure("budget_exhausted", NOT_TWICE));
    await this.prepare(amounts);
    const render: Ask["render"] = ({ reservation }) => {
      const { untilMs } = this.#state.budget.reservations.get(reservation!)!;
      const reserved = named([null, ...amounts.slice(1)]);
      return JSON.stringify({ reservationId: `rsv_${reservation}`, expiresAt: new Date(untilMs).toISOString(), ...reserved });
    };
    return this.#run({ command: { kind: "reserve", by, amounts, ttlMs }, ...who, render });
  }

  settle(by: Reserver, reservation: number, used: Bounds | null, who: Who): Promise<Answer<JsonReply>> {
    const render = (): string => JSON.stringify({ reservationId: `rsv_${reservation}`, budget: budgetView(this.#state) });
    return this.#run({ command: { kind: "settle-reservation", by, reservation, used }, ...who, render });
  }

  /** What a gate has spent of its tab, and what it wants besides. */
  async tab(request: TabRequest): Promise<Answer<TabReply>> {
    const { wants } = request;
    if (wants.length > 0) {
      const total = (many: (want: TabRequest["wants"][number]) => number): number[] =>
        wants.reduce(
          (sum, want) => sum.map((amount, d) => amount + want.amounts[d]! * many(want)),
          NOTHING.map(() => 0),
        );
      await this.prepare(
        total(({ need }) => need),
        total(({ need, spare }) => need + spare),
      );
    }
    const reply = await this.#run({ command: { kind: "tab", ...request }, render: ({ drawn }) => JSON.stringify(drawn) });
    return reply.ok ? ok(JSON.parse(reply.value.json) as TabReply) : reply;
  }

  async #run(ask: Ask): Promise<Answer<JsonReply>> {
    return this.#state.goal === null ? err(missing()) : this.#turns().run(ask);
  }
}
