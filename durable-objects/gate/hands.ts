/**
 * What the gate lends to functions while they run: a batch of them holds
 * permits, calls that are paid for, and keys, and uses them for one call after
 * another, so that there are few messages. What it does with them it says
 * afterwards, many calls at a time. Where it is gone without a word, permits
 * are free again, and all that was paid for counts as used.
 */
import { RpcTarget } from "cloudflare:workers";
import { type Failure, failure } from "../../shared/errors.ts";
import { HAND_CALLS_MAX, HAND_HOLD_MS, HAND_PERMITS_MAX, HAND_SPARE_MAX } from "../../shared/limits.ts";
import { HAND_SECONDS_MAX, SECOND_WAIT_MS } from "../../shared/limits-hedging.ts";
import { type Amounts, NOTHING, timesOf } from "../../shared/policy/account.ts";
import { type CallEnd, NOT_SENT } from "../../shared/policy/outcome.ts";
import { priceOf, usedOf } from "../../shared/policy/price.ts";
import type { Upstream } from "../../shared/protocol/upstream.ts";
import type { Draw, HandAsk, HandEnd, HandNews, HandRequest, HandRpc, SecondAsked } from "../../shared/rpc-functions.ts";
import type { KeyedCall } from "../../shared/rpc.ts";
import type { Keys } from "./keys.ts";
import type { Queues, Visitor } from "./queues.ts";
import { type GoalCopy, goalCopy, goalStub, type RegistryCopy, upstreamIn } from "./registry.ts";
import { termsAt } from "./terms.ts";
import { type Tab, Till } from "./till.ts";

type Mutable<T> = { -readonly [K in keyof T]: T[K] extends readonly (infer I)[] ? I[] : T[K] };

/** What one call is paid from. */
interface Paid {
  readonly tab: Tab;
  readonly amounts: Amounts;
  /** As in its `Draw`. */
  readonly covered?: Draw["covered"];
}

/** Calls that are paid for, all of one price and from one tab. */
interface Stock extends Paid {
  count: number;
}

/** One upstream, as a batch sees it. */
interface Counter {
  readonly name: string;
  /** What it was told of the upstream. */
  told: readonly unknown[];
  readonly permits: Map<number, Visitor>;
  stocks: Stock[];
  readonly draws: Map<number, Paid>;
  readonly keys: Map<number, KeyedCall>;
  /** What it is told next. */
  news: Mutable<HandNews>;
}

const newNews = (upstream: string): Mutable<HandNews> => ({
  upstream,
  permits: [],
  calls: 0,
  isTight: false,
  draws: [],
  keys: [],
  permitMs: null,
  isReusable: false,
});

const isNews = ({ news }: Counter): boolean =>
  news.fault !== undefined ||
  news.without !== undefined ||
  news.unpaid !== undefined ||
  news.seconds !== undefined ||
  news.calls + news.permits.length + news.draws.length + news.keys.length > 0;

const secondsIn = ({ permits }: Counter): number => [...permits.values()].filter(({ isSecond }) => isSecond === true).length;
const most = (count: number, max: number): number => Math.max(0, Math.min(count, max));

/** What hands draw from. */
interface Lender {
  readonly registry: RegistryCopy;
  readonly keys: Keys;
  readonly queues: Queues;
  readonly goal: GoalCopy;
  readonly till: Till;
}

/** The hands of one gate. A gate that lends has one goal. */
export class Hands {
  readonly #env: Env;
  readonly #shared: Omit<Lender, "goal" | "till">;
  #lender: Lender | null = null;
  #open = 0;

  constructor(env: Env, registry: RegistryCopy, keys: Keys, queues: Queues) {
    this.#env = env;
    this.#shared = { registry, keys, queues };
  }

  hand(request: HandRequest): Hand {
    const { goalId } = request;
    this.#lender ??= { ...this.#shared, goal: goalCopy(this.#env, goalId), till: new Till(() => goalStub(this.#env, goalId)) };
    const { till } = this.#lender;
    this.#open++;
    return new Hand(this.#lender, request, () => {
      // Where nothing runs any more, somebody may want to know what it has cost.
      if (--this.#open === 0) till.hurry();
    });
  }
}

class Hand extends RpcTarget implements HandRpc {
  readonly #lender: Lender;
  readonly #request: HandRequest;
  readonly #ended: () => void;
  readonly #counters = new Map<string, Counter>();
  #nextPermit = 1;
  /** What was asked for and has no answer yet. */
  #pending = 0;
  /** The exchange that waits for it. */
  #wake: (() => void) | null = null;
  #isOver = false;

  constructor(lender: Lender, request: HandRequest, ended: () => void) {
    super();
    this.#lender = lender;
    this.#request = request;
    this.#ended = ended;
  }

  async find(origin: string): Promise<string | null> {
    const found = await upstreamIn(this.#lender.registry, ({ origins }) => origins.includes(origin));
    return found?.upstream.name ?? null;
  }

  async exchange(asks: readonly HandAsk[]): Promise<readonly HandNews[]> {
    this.#wake?.();
    for (const ask of asks) {
      const counter = this.#counterOf(ask.upstream);
      this.#hear(counter, ask);
      void this.#during(this.#serve(counter, ask));
    }
    const isThere = (): boolean => this.#pending === 0 || [...this.#counters.values()].some(isNews);
    if (!isThere()) await this.#wait();
    // What comes at the same time goes together.
    await new Promise((resolve) => setTimeout(resolve, 0));
    const asked = new Set(asks.map(({ upstream }) => upstream));
    return [...this.#counters.values()]
      .filter((counter) => asked.has(counter.name) || isNews(counter))
      .map((counter) => this.#told(counter));
  }

  /** Until something is there, or is asked for again. Not for long: the loss of one who waits shows when he has had his answer. */
  #wait(): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        // By now it may be another exchange that waits.
        if (this.#wake === wake) this.#wake = null;
        resolve();
      };
      const timer = setTimeout(wake, HAND_HOLD_MS);
      this.#wake = wake;
    });
  }

  async close(asks: readonly HandAsk[]): Promise<void> {
    if (this.#isOver) return;
    for (const ask of asks) this.#hear(this.#counterOf(ask.upstream), ask);
    this.#end(false);
  }

  [Symbol.dispose](): void {
    if (!this.#isOver) this.#end(true);
  }

  /** `isLost`: nobody says whether what is paid for was made, so it counts as made. */
  #end(isLost: boolean): void {
    this.#isOver = true;
    this.#wake?.();
    const { queues, till, keys } = this.#lender;
    const usedOfAll = (all: Amounts): Amounts => (isLost ? all : NOTHING);
    for (const counter of this.#counters.values()) {
      for (const visitor of counter.permits.values()) queues.leave(visitor, null);
      for (const { tab, amounts, count } of counter.stocks) till.settle(tab, timesOf(amounts, count), usedOfAll(timesOf(amounts, count)));
      for (const { tab, amounts } of counter.draws.values()) till.settle(tab, amounts, usedOfAll(amounts));
      for (const keyed of counter.keys.values()) keys.release(keyed, null, undefined);
    }
    this.#counters.clear();
    this.#ended();
  }

  #counterOf(name: string): Counter {
    let counter = this.#counters.get(name);
    if (counter === undefined) {
      counter = { name, told: [], permits: new Map(), stocks: [], draws: new Map(), keys: new Map(), news: newNews(name) };
      this.#counters.set(name, counter);
    }
    return counter;
  }

  /** Takes what is told of a counter out of it. */
  #told(counter: Counter): HandNews {
    const { news, permits } = counter;
    counter.news = newNews(counter.name);
    const { queues } = this.#lender;
    const [first] = permits.values();
    if (first === undefined || first.queue === null) return news;
    news.permitMs = first.queue.upstream.maxConcurrency === null ? null : queues.remainingMs(first);
    news.isReusable = queues.isReusable(first);
    news.hedgeAfterMs = queues.hedgeAfterMs(first);
    return news;
  }

  async #during(work: Promise<void>): Promise<void> {
    this.#pending++;
    try {
      await work;
    } finally {
      this.#pending--;
      this.#wake?.();
    }
  }

  /** What has become of what it had. */
  #hear(counter: Counter, { ends, back, unused, undrawn, closed }: HandAsk): void {
    const { queues, till, keys } = this.#lender;
    for (const { permit, draw, end } of ends) {
      const visitor = counter.permits.get(permit);
      if (visitor?.isSecond === true) this.#takeBack(counter, permit, end);
      else if (visitor !== undefined) queues.again(visitor, end);
      this.#spend(counter, draw, end);
    }
    for (const id of back) this.#takeBack(counter, id);
    for (let left = unused; left > 0;) {
      const stock = counter.stocks[0];
      if (stock === undefined) break;
      const count = Math.min(left, stock.count);
      till.settle(stock.tab, timesOf(stock.amounts, count), NOTHING);
      takeFrom(counter, count);
      left -= count;
    }
    for (const id of undrawn) this.#spend(counter, id, NOT_SENT);
    for (const { id, end, answer } of closed) {
      const keyed = counter.keys.get(id);
      counter.keys.delete(id);
      if (keyed !== undefined) keys.release(keyed, end, answer);
    }
  }

  #spend(counter: Counter, draw: HandEnd["draw"], end: CallEnd): void {
    const paid = draw === null ? counter.stocks[0] : counter.draws.get(draw);
    if (paid === undefined) return;
    if (draw === null) takeFrom(counter, 1);
    else counter.draws.delete(draw);
    const { tab, amounts, covered } = paid;
    const used = usedOf(amounts, end).map((amount, d) => (covered?.[d] === true ? 0 : amount));
    this.#lender.till.settle(tab, amounts, used);
  }

  #takeBack(counter: Counter, id: number, end: CallEnd | null = null): void {
    const visitor = counter.permits.get(id);
    counter.permits.delete(id);
    if (visitor !== undefined) this.#lender.queues.leave(visitor, end);
  }

  /** What it wants. */
  async #serve(counter: Counter, ask: HandAsk): Promise<void> {
    const found = await termsAt(counter.name, this.#lender);
    if (this.#isOver) return;
    const { news } = counter;
    if ("fault" in found) {
      news.fault = found.fault;
      return;
    }
    const { upstream, version, told, terms } = found;
    if (told.some((one, i) => one !== counter.told[i])) {
      counter.told = told;
      news.terms = terms;
    }
    const permits = most(ask.permits, HAND_PERMITS_MAX - (counter.permits.size - secondsIn(counter)));
    for (let i = 0; i < permits; i++) void this.#during(this.#permit(counter, upstream, version));
    if (permits < ask.permits) without(counter, ask.permits - permits, tooMany(counter.name));
    const held = counter.stocks.reduce((sum, { count }) => sum + count, 0);
    const calls = most(ask.calls, HAND_CALLS_MAX - held);
    if (calls + ask.spare > 0) void this.#during(this.#pay(counter, priceOf(upstream), calls, most(ask.spare, HAND_SPARE_MAX)));
    for (const draw of ask.draws) void this.#during(this.#draw(counter, draw, priceOf(upstream, draw.reserve)));
    for (const second of ask.seconds ?? []) void this.#during(this.#second(counter, upstream, version, second));
    for (const { id, keyed } of ask.keys) void this.#during(this.#claim(counter, id, keyed));
  }

  async #permit(counter: Counter, upstream: Upstream, version: number): Promise<void> {
    const { queues } = this.#lender;
    const { gate, waitMs } = this.#request;
    const visitor: Visitor = { untilMs: Date.now() + waitMs, avoid: [], queue: null, place: null, resolve: null, isLent: true };
    const id = this.#nextPermit++;
    // From now on, so that it is left in time whatever happens.
    counter.permits.set(id, visitor);
    const opened = await queues.join(gate, visitor, upstream, version);
    if (this.#isOver) return queues.leave(visitor, null);
    if (opened.ok) counter.news.permits.push([id, opened.value.place]);
    else {
      counter.permits.delete(id);
      without(counter, 1, opened.error);
    }
  }

  async #second(counter: Counter, upstream: Upstream, version: number, asked: SecondAsked): Promise<void> {
    const permit = secondsIn(counter) < HAND_SECONDS_MAX ? await this.#permitForSecond(counter, upstream, version, asked.place) : null;
    if (this.#isOver) return;
    const isPaid = permit !== null && (await this.#paySecond(counter, priceOf(upstream, asked.reserve), asked.id));
    if (this.#isOver) return;
    if (permit !== null && !isPaid) this.#takeBack(counter, permit[0], NOT_SENT);
    const { news } = counter;
    news.seconds = [...(news.seconds ?? []), { id: asked.id, ...(isPaid && { permit }) }];
  }

  async #permitForSecond(
    counter: Counter,
    upstream: Upstream,
    version: number,
    avoid: number,
  ): Promise<readonly [id: number, place: number] | null> {
    const { queues } = this.#lender;
    const untilMs = Date.now() + SECOND_WAIT_MS;
    const visitor: Visitor = { untilMs, avoid: [avoid], queue: null, place: null, resolve: null, isSecond: true };
    const opening = queues.second(this.#request.gate, visitor, upstream, version);
    const id = this.#nextPermit++;
    // One that is not let wait has no place at the gate.
    if (visitor.queue !== null) counter.permits.set(id, visitor);
    const opened = await opening;
    if (opened.ok) return [id, opened.value.place];
    counter.permits.delete(id);
    return null;
  }

  /** Where the goal has plenty, as if for a stock. */
  async #paySecond(counter: Counter, amounts: Amounts, id: number): Promise<boolean> {
    const { till } = this.#lender;
    const paid = await till.take(amounts, 1, HAND_SPARE_MAX);
    if (!paid.ok || paid.value.times === 0) return false;
    const { tab, times, isTight } = paid.value;
    const isGood = !isTight && !this.#isOver;
    const back = timesOf(amounts, isGood ? times - 1 : times);
    till.settle(tab, back, NOTHING);
    if (isGood) counter.draws.set(id, { tab, amounts });
    return isGood;
  }

  async #pay(counter: Counter, amounts: Amounts, calls: number, spare: number): Promise<void> {
    const { till } = this.#lender;
    const paid = await till.take(amounts, calls, spare);
    const count = paid.ok ? paid.value.times : 0;
    if (paid.ok && count > 0) {
      const { tab } = paid.value;
      if (this.#isOver) return till.settle(tab, timesOf(amounts, count), NOTHING);
      counter.stocks.push({ tab, amounts, count });
    }
    const { news } = counter;
    news.calls += count;
    news.isTight ||= paid.ok && paid.value.isTight;
    if (count >= calls) return;
    const fault = paid.ok ? exhausted(counter.name) : paid.error;
    news.unpaid = { count: (news.unpaid?.count ?? 0) + calls - count, fault };
  }

  async #draw(counter: Counter, { id, covered }: Draw, amounts: Amounts): Promise<void> {
    const { till } = this.#lender;
    const paid = await till.take(amounts, 1, 0);
    if (!paid.ok) return void counter.news.draws.push({ id, fault: paid.error });
    if (paid.value.times === 0) return void counter.news.draws.push({ id, fault: exhausted(counter.name) });
    if (this.#isOver) return till.settle(paid.value.tab, amounts, NOTHING);
    counter.draws.set(id, { tab: paid.value.tab, amounts, covered });
    counter.news.draws.push({ id, fault: null });
  }

  async #claim(counter: Counter, id: number, keyed: KeyedCall): Promise<void> {
    const { keys } = this.#lender;
    const claimed = await keys.claim(keyed, Date.now() + this.#request.waitMs);
    if (!claimed.ok) return void counter.news.keys.push({ id, fault: claimed.error });
    if (claimed.value !== null) return void counter.news.keys.push({ id, replay: claimed.value });
    if (this.#isOver) return keys.release(keyed, null, undefined);
    // It is written down before its holder hears that it may call.
    keys.begin(keyed);
    counter.keys.set(id, keyed);
    counter.news.keys.push({ id });
  }
}

/** Takes calls out of the oldest stock, which has as many. */
function takeFrom({ stocks }: Counter, count: number): void {
  stocks[0]!.count -= count;
  if (stocks[0]!.count === 0) stocks.shift();
}

/** Everything that is asked for is answered, or its asker would wait for ever. */
function without({ news }: Counter, count: number, fault: Failure): void {
  news.without = { count: (news.without?.count ?? 0) + count, fault };
}

const tooMany = (name: string): Failure =>
  failure("temporary_reduced_capacity", `${HAND_PERMITS_MAX} calls of one batch are open at the upstream "${name}" already`);

const exhausted = (name: string): Failure =>
  failure("budget_exhausted", `the goal's budget does not allow another call to the upstream "${name}"`);
