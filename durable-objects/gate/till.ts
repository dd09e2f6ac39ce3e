/**
 * The gate's tab at its goal: what functions' calls are paid from, many calls a
 * message and one message at a time. What a gate that is lost held, the goal
 * charges in full.
 */
import { type Failure, failure } from "../../shared/errors.ts";
import { TAB_MS, TAB_REPORT_MS, TAB_SPENT_MS } from "../../shared/limits.ts";
import { type Amounts, isNothing, minus, NOTHING, plus, timesOf } from "../../shared/policy/account.ts";
import { err, ok } from "../../shared/result.ts";
import type { TabReply, TabRequest, TabRpc } from "../../shared/rpc-functions.ts";
import type { Answer } from "../../shared/rpc.ts";
import { newLife } from "../kit/chance.ts";

/** What is held under one name. Whoever draws from it keeps it, because the till may have to begin another. */
export interface Tab {
  readonly life: string;
  left: Amounts;
  used: Amounts;
  /** The goal has heard of it. */
  isKnown: boolean;
}

/** So often the same amounts, of one tab. */
export interface Paid {
  readonly tab: Tab;
  readonly times: number;
  readonly isTight: boolean;
}

interface Want {
  readonly amounts: Amounts;
  readonly need: number;
  readonly spare: number;
  readonly resolve: (answer: Answer<Paid>) => void;
}

const TAB_TRIES_MAX = 4;
const RETRY_MS = 50;

const lost = (): Failure => failure("temporary_reduced_capacity", "the goal cannot be asked for budget right now", { retryAfterMs: 1_000 });

export class Till {
  readonly #goal: () => TabRpc;
  #tab = newTab();
  #wants: Want[] = [];
  #isAsking = false;
  #failures = 0;
  #timer: number | null = null;
  #timerAtMs = Number.POSITIVE_INFINITY;
  /** When what was settled since the last request is to be told. */
  #reportAtMs = Number.POSITIVE_INFINITY;

  constructor(goal: () => TabRpc) {
    this.#goal = goal;
  }

  /** Draws `need` times, or as often as there is enough; and more, up to `spare`, where there is plenty. */
  take(amounts: Amounts, need: number, spare: number): Promise<Answer<Paid>> {
    return new Promise((resolve) => {
      this.#wants.push({ amounts, need, spare, resolve });
      this.#schedule(0);
    });
  }

  /** So much of what was drawn is over, and so much of it was used. */
  settle(tab: Tab, drawn: Amounts, used: Amounts): void {
    // What another tab held was charged when it was lost.
    if (tab !== this.#tab) return;
    tab.left = minus(tab.left, drawn);
    tab.used = plus(tab.used, used);
    // What is free again others may wait for; nobody waits to hear what was spent.
    const isFreed = drawn.some((amount, d) => amount > used[d]!);
    this.#report(isFreed ? TAB_REPORT_MS : TAB_SPENT_MS);
  }

  /** What was settled is told soon. */
  hurry(): void {
    if (this.#reportAtMs !== Number.POSITIVE_INFINITY) this.#report(TAB_REPORT_MS);
  }

  #report(withinMs: number): void {
    this.#reportAtMs = Math.min(this.#reportAtMs, Date.now() + withinMs);
    this.#schedule(withinMs);
  }

  #schedule(inMs: number): void {
    const atMs = Date.now() + inMs;
    if (this.#isAsking || atMs >= this.#timerAtMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    this.#timer = setTimeout(() => void this.#exchange(), inMs);
  }

  async #exchange(): Promise<void> {
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    this.#reportAtMs = Number.POSITIVE_INFINITY;
    this.#isAsking = true;
    const wants = this.#wants;
    this.#wants = [];
    const tab = this.#tab;
    const { life, isKnown, used, left } = tab;
    const request: TabRequest = {
      life,
      isNew: !isKnown,
      used,
      left,
      wants: wants.map(({ amounts, need, spare }) => ({ amounts, need, spare })),
    };
    let reply: Answer<TabReply>;
    try {
      reply = await this.#goal().tab(request);
    } catch (error) {
      this.#failures++;
      if (this.#failures < TAB_TRIES_MAX) return this.#again(wants);
      console.warn(`a gate's tab was not answered: ${String(error)}`);
      reply = err(lost());
      // What is given back must be heard of some time.
      this.#reportAtMs = Date.now() + TAB_MS / 10;
    }
    this.#failures = 0;
    this.#isAsking = false;
    if (reply.ok && reply.value.granted === null) this.#beginAnew(wants);
    else this.#serve(tab, wants, reply);
    if (this.#wants.length > 0) this.#schedule(0);
    else if (this.#reportAtMs !== Number.POSITIVE_INFINITY) this.#schedule(this.#reportAtMs - Date.now());
    else if (!isNothing(tab.left)) this.#schedule(TAB_MS / 3);
  }

  /** All of a tab is said each time, so it can be said again whatever became of it. */
  #again(wants: readonly Want[]): void {
    this.#isAsking = false;
    this.#wants = [...wants, ...this.#wants];
    this.#schedule(RETRY_MS * this.#failures);
  }

  /** The goal has closed the tab, and has charged what was left. */
  #beginAnew(wants: readonly Want[]): void {
    this.#tab = newTab();
    this.#wants = [...wants, ...this.#wants];
  }

  #serve(tab: Tab, wants: readonly Want[], reply: Answer<TabReply>): void {
    // Where the answer is lost, the next request says what is held all the same.
    if (reply.ok) tab.isKnown = true;
    wants.forEach(({ amounts, resolve }, i) => {
      if (!reply.ok) return resolve(reply);
      const count = reply.value.granted![i]!;
      tab.left = plus(tab.left, timesOf(amounts, count));
      resolve(ok({ tab, times: count, isTight: reply.value.isTight }));
    });
  }
}

const newTab = (): Tab => ({ life: newLife(), left: NOTHING, used: NOTHING, isKnown: false });
