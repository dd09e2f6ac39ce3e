/**
 * What a batch of functions holds at one upstream: permits, and calls that are
 * paid for. They are used for one call after another as long as there are
 * calls; what nobody uses for a moment goes back.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { HAND_NEWS_MS, HAND_PERMITS_MAX, HAND_REPORT_MS, HAND_SPARE_MAX } from "../../../shared/limits.ts";
import { type CallEnd, NOT_SENT, verdictOfCall } from "../../../shared/policy/outcome.ts";
import type { Reserve } from "../../../shared/protocol/task.ts";
import type { HandAsk, HandNews, HandTerms } from "../../../shared/rpc-functions.ts";
import type { WholeAnswer } from "../../../shared/rpc-flight.ts";
import type { KeyedCall } from "../../../shared/rpc.ts";
import type { Cutoff } from "../../kit/cutoff.ts";
import { HostError } from "../../sandbox/types.ts";
import type { Claim, Leave, Permit } from "./leave.ts";
import { News } from "./news.ts";
import { type Own, ownOf, type Payment, PREPAID } from "./purse.ts";
import { Seconds } from "./seconds.ts";

/** No call begins on less than this of a permit that ends. */
const FRESH_MS = 250;
/** A timer that is so late shows that this process is behind. */
const TIMER_LATE_MS = 50;
/** A permit that is about to end is asked for at most this often. */
const RENEW_INTERVAL_MS_MIN = 10;
/** A permit that is not used again is given back so soon. */
const SPOILED_MS = 5;

interface Waiter {
  readonly own: Own | null;
  readonly resolve: (leave: Leave) => void;
  readonly reject: (error: unknown) => void;
}

interface Claimer {
  readonly keyed: KeyedCall;
  isAsked: boolean;
  readonly resolve: (claim: Claim) => void;
  readonly reject: (error: unknown) => void;
}

export const errorOf = ({ code, detail }: Failure): HostError => new HostError(code, detail);

export class Slice {
  readonly #stir: (inMs: number) => void;
  /** Runs that share it: each is likely to call. */
  readonly #runs: number;
  readonly #news: News;
  #terms: HandTerms | null = null;
  #termsWaiters: PromiseWithResolvers<HandTerms> | null = null;
  #waiting: Waiter[] = [];
  readonly #seconds = new Seconds();
  #hedgeAfterMs: number | null = null;
  readonly #claims = new Map<number, Claimer>();
  #idle: Permit[] = [];
  readonly #busy = new Set<Leave>();
  #calls = 0;
  /** Asked for, without an answer yet. */
  #permitsAsked = 0;
  #callsAsked = 0;
  /** More than that, where there is plenty; at most so many, until nothing is asked for any more. */
  #spareAsked = 0;
  /** Made so far. */
  #made = 0;
  #isTight = false;
  #isReusable = false;
  #usedAtMs = 0;
  /** When the permits end; Infinity where the upstream sets no hard bound. */
  #untilMs = Number.POSITIVE_INFINITY;
  #renewAtMs = Number.POSITIVE_INFINITY;
  #watch: number | null = null;
  #life = 0;
  #nextId = 1;

  /** `stir` asks for an exchange within so long. */
  constructor(upstream: string, runs: number, stir: (inMs: number) => void) {
    this.#runs = runs;
    this.#stir = stir;
    this.#news = new News(upstream, stir);
  }

  /** Something that was asked for has no answer yet. */
  get isWaiting(): boolean {
    const isUnpaid = (): boolean => this.#waiting.some(({ own }) => own?.isPaid === false);
    return this.#permitsAsked + this.#callsAsked + this.#claims.size + this.#seconds.size > 0 || this.#termsWaiters !== null || isUnpaid();
  }

  /** There is something to give back. */
  get isHolding(): boolean {
    return (
      this.#idle.length + this.#calls > 0 || !this.#news.isEmpty || (this.#busy.size > 0 && this.#untilMs !== Number.POSITIVE_INFINITY)
    );
  }

  terms(): Promise<HandTerms> {
    if (this.#terms !== null) return Promise.resolve(this.#terms);
    this.#termsWaiters ??= Promise.withResolvers();
    this.#stir(0);
    return this.#termsWaiters.promise;
  }

  /** Leave for one call. Rejects with a `HostError`. */
  take(reserve: Reserve | undefined, payment: Payment | null, cutoff: Cutoff): Promise<Leave> {
    return new Promise((resolve, reject) => {
      const own = ownOf(() => this.#nextId++, reserve, payment);
      const give = (): void => {
        const at = this.#waiting.indexOf(waiter);
        if (at < 0) return;
        this.#waiting.splice(at, 1);
        if (own?.isPaid === true && own.id !== PREPAID) this.#news.note(HAND_NEWS_MS).undrawn.push(own.id);
        reject(new HostError("canceled", "the run has ended"));
      };
      const settled = <T>(then: (value: T) => void): ((value: T) => void) => {
        return (value) => {
          cutoff.forget(give);
          then(value);
        };
      };
      const waiter: Waiter = { own, resolve: settled(resolve), reject: settled(reject) };
      if (cutoff.isOver) return reject(new HostError("canceled", "the run has ended"));
      cutoff.watch(give);
      this.#waiting.push(waiter);
      if (own !== null) this.#draw(own);
      this.#serve();
    });
  }

  /** After how long a call may be made a second time; null where none may. */
  get hedgeAfterMs(): number | null {
    return this.#hedgeAfterMs;
  }

  /** Leave for a second try of a call, at another origin than this one's if possible; null for none. Never rejects. */
  async second({ place }: Leave, reserve: Reserve | undefined): Promise<Leave | null> {
    const open = [...this.#busy].filter(({ isSecond }) => isSecond === true).length;
    const asking = this.#seconds.ask({ id: this.#nextId++, place, reserve }, open);
    if (this.#seconds.isDue) this.#stir(0);
    const second = await asking;
    if (second === null) return null;
    const leave: Leave = { ...second, terms: this.#terms!, life: this.#life, isSecond: true, cut: null };
    this.#busy.add(leave);
    if (this.#isFresh) return leave;
    this.give(leave, NOT_SENT);
    return null;
  }

  /** Asks for what the call sets aside. */
  #draw(own: Own): void {
    if (own.id === PREPAID) return;
    own.isPaid = false;
    const { id, reserve, covered } = own;
    this.#news.note(0).draws.push({ id, reserve, covered });
  }

  /** The call has ended. */
  give(leave: Leave, end: CallEnd): void {
    // What an earlier life of the gate had lent is charged, and nobody waits for it.
    if (!this.#busy.delete(leave)) return;
    this.#usedAtMs = Date.now();
    const verdict = verdictOfCall(end.outcome, end.status);
    const isGood =
      leave.isSecond !== true && verdict !== "refused" && verdict !== "unavailable" && this.#isReusable && this.#untilMs > this.#usedAtMs;
    const ask = this.#news.note(isGood ? HAND_REPORT_MS : SPOILED_MS);
    ask.ends.push({ permit: leave.id, draw: leave.draw, end });
    if (isGood) this.#idle.push({ id: leave.id, place: leave.place });
    else ask.back.push(leave.id);
    this.#serve();
    if (this.#idle.length > 0) this.#stir(HAND_NEWS_MS);
  }

  /** Before a call that must not be made twice. */
  claim(keyed: KeyedCall): Promise<Claim> {
    return new Promise((resolve, reject) => {
      this.#claims.set(this.#nextId++, { keyed, isAsked: false, resolve, reject });
      this.#stir(0);
    });
  }

  /** How the call with the key has ended. */
  close(claim: Claim, end: CallEnd, answer?: WholeAnswer | null): void {
    // A gate that came after the one that knew of it will say that its outcome is unknown.
    if ("replay" in claim || claim.life !== this.#life) return;
    this.#news.note(HAND_NEWS_MS).closed.push({ id: claim.id, end, ...(answer === undefined ? {} : { answer }) });
  }

  /** What there is to say and to want now; null for nothing. */
  ask(nowMs: number): HandAsk | null {
    this.#giveBack(nowMs);
    const isRenewing = nowMs >= this.#renewAtMs && this.#busy.size + this.#idle.length > 0;
    const permits = this.#permitsWanted;
    const calls = this.#callsWanted;
    const claims = [...this.#claims].filter(([, { isAsked }]) => !isAsked);
    const seconds = this.#seconds.take();
    const isWanting = permits + calls + claims.length + seconds.length > 0 || this.#termsWaiters !== null;
    if (!isWanting && !isRenewing && !this.#news.isDue(nowMs)) return null;
    const ask = this.#news.take();
    ask.permits = permits;
    ask.calls = calls;
    if (calls > 0 && !this.#isTight) {
      const stock = Math.min(HAND_SPARE_MAX, Math.max(this.#made, this.#runs - calls));
      ask.spare = Math.max(0, stock - this.#calls - this.#spareAsked);
      this.#spareAsked += ask.spare;
    }
    if (seconds.length > 0) ask.seconds = seconds;
    this.#permitsAsked += permits;
    this.#callsAsked += calls;
    for (const [id, claimer] of claims) {
      claimer.isAsked = true;
      ask.keys.push({ id, keyed: claimer.keyed });
    }
    return ask;
  }

  /** The last word: everything goes back. */
  last(): HandAsk | null {
    const ask = this.#news.take();
    ask.back.push(...this.#idle.map(({ id }) => id));
    ask.unused += this.#calls;
    ask.undrawn.push(...this.#seconds.cancel());
    this.#idle = [];
    this.#calls = 0;
    clearTimeout(this.#watch);
    return ask.ends.length + ask.back.length + ask.unused + ask.undrawn.length + ask.closed.length > 0 ? ask : null;
  }

  hear(news: HandNews, askedAtMs: number): void {
    if (news.fault !== undefined) return this.#refuse(news.fault);
    if (news.terms !== undefined) this.#terms = news.terms;
    if (this.#terms !== null) this.#termsWaiters?.resolve(this.#terms);
    if (this.#terms !== null) this.#termsWaiters = null;
    if (news.calls > 0 || news.unpaid !== undefined) this.#isTight = news.isTight;
    this.#idle.push(...news.permits.map(([id, place]) => ({ id, place })));
    this.#calls += news.calls;
    if (this.#busy.size + this.#idle.length > 0) {
      this.#isReusable = news.isReusable;
      // What the gate says counts from when it was asked, which is earlier than when it said it.
      this.#untilMs =
        news.permitMs === null ? Number.POSITIVE_INFINITY : Math.max(this.#isBounded ? this.#untilMs : 0, askedAtMs + news.permitMs);
      this.#arm();
    }
    if (news.hedgeAfterMs !== undefined) this.#hedgeAfterMs = news.hedgeAfterMs;
    if (news.permits.length + news.calls > 0) this.#usedAtMs = Date.now();
    this.#permitsAsked = Math.max(0, this.#permitsAsked - news.permits.length - (news.without?.count ?? 0));
    // What there is more than was needed is of the stock.
    const more = news.calls + (news.unpaid?.count ?? 0) - this.#callsAsked;
    this.#callsAsked = Math.max(0, -more);
    this.#spareAsked = this.#callsAsked === 0 ? 0 : Math.max(0, this.#spareAsked - Math.max(0, more));
    this.#seconds.hear(news.seconds ?? []);
    for (const { id, fault } of news.draws) this.#paid(id, fault);
    for (const { id, fault, replay } of news.keys) this.#claimed(id, fault, replay);
    this.#serve();
    if (news.unpaid !== undefined) this.#rejectSome(news.unpaid.count, news.unpaid.fault, ({ own }) => own === null);
    const isWithout = this.#busy.size + this.#idle.length + this.#permitsAsked === 0;
    if (news.without !== undefined && isWithout) this.#rejectSome(news.without.count, news.without.fault, () => true);
  }

  /** The gate is lost, and all that was borrowed of it. Where there is a fault, nobody asks again by himself. */
  lose(fault: Failure | null): void {
    this.#life++;
    this.#idle = [];
    this.#calls = 0;
    this.#permitsAsked = 0;
    this.#callsAsked = 0;
    this.#spareAsked = 0;
    this.#news.take();
    this.#seconds.cancel();
    // What is open goes on until its permit ends, which nobody renews; what it was paid from was charged.
    const leftMs = this.#untilMs - Date.now();
    for (const leave of this.#busy) if (this.#isBounded) setTimeout(() => leave.cut?.(), Math.max(0, leftMs));
    this.#busy.clear();
    clearTimeout(this.#watch);
    this.#untilMs = Number.POSITIVE_INFINITY;
    for (const claimer of this.#claims.values()) claimer.isAsked = false;
    for (const { own } of this.#waiting) if (own !== null) this.#draw(own);
    if (fault !== null) this.#refuse(fault);
  }

  get #isBounded(): boolean {
    return this.#untilMs !== Number.POSITIVE_INFINITY;
  }

  /** Permits and calls to ask for beyond what there is, and what was asked for. */
  get #permitsWanted(): number {
    const used = Math.min(HAND_PERMITS_MAX, this.#busy.size + this.#waiting.length);
    return Math.max(0, used - this.#busy.size - this.#idle.length - this.#permitsAsked);
  }

  get #callsWanted(): number {
    const plain = this.#waiting.filter(({ own }) => own === null).length;
    // Others wait for permits first, and are paid for from the next stock.
    return Math.max(0, Math.min(plain, HAND_SPARE_MAX / 2) - this.#calls - this.#callsAsked - this.#spareAsked);
  }

  /** Whatever has not been used for a moment, and where there is little whatever is not needed now. */
  #giveBack(nowMs: number): void {
    const isResting = this.#waiting.length === 0 && nowMs - this.#usedAtMs >= HAND_NEWS_MS - 1;
    const surplus = isResting || this.#isTight ? Math.max(0, this.#calls - this.#waiting.length) : 0;
    if (surplus > 0) this.#news.add().unused += surplus;
    this.#calls -= surplus;
    if (!isResting || this.#idle.length === 0) return;
    this.#news.add().back.push(...this.#idle.map(({ id }) => id));
    this.#idle = [];
  }

  /** Whether its permits last long enough for a call to begin. */
  get #isFresh(): boolean {
    return !this.#isBounded || this.#untilMs - Date.now() >= FRESH_MS;
  }

  #serve(): void {
    const isFresh = this.#isFresh;
    const servable = isFresh ? this.#idle.length : 0;
    for (let i = 0; i < servable; i++) {
      const at = this.#waiting.findIndex(({ own }) => (own === null ? this.#calls > 0 : own.isPaid));
      if (at < 0) break;
      const [waiter] = this.#waiting.splice(at, 1);
      const permit = this.#idle.pop()!;
      const { own } = waiter!;
      if (own === null) this.#calls--;
      const leave: Leave = { ...permit, terms: this.#terms!, draw: own?.id ?? null, life: this.#life, cut: null };
      this.#busy.add(leave);
      if (own?.id !== PREPAID) this.#made++;
      waiter!.resolve(leave);
    }
    if (this.#permitsWanted + this.#callsWanted > 0) this.#stir(0);
    if (isFresh || this.#waiting.length === 0 || this.#idle.length === 0) return;
    this.#renewAtMs = 0;
    this.#stir(RENEW_INTERVAL_MS_MIN);
  }

  #paid(id: number, fault: Failure | null): void {
    const at = this.#waiting.findIndex(({ own }) => own?.id === id);
    const waiter = this.#waiting[at];
    if (waiter === undefined) {
      if (fault === null) this.#news.note(HAND_NEWS_MS).undrawn.push(id);
    } else if (fault === null) waiter.own!.isPaid = true;
    else {
      this.#waiting.splice(at, 1);
      waiter.reject(errorOf(fault));
    }
  }

  #claimed(id: number, fault: Failure | undefined, replay: WholeAnswer | undefined): void {
    const claimer = this.#claims.get(id);
    this.#claims.delete(id);
    if (fault !== undefined) claimer?.reject(errorOf(fault));
    else claimer?.resolve(replay === undefined ? { id, life: this.#life } : { replay });
  }

  #rejectSome(count: number, fault: Failure, isMeant: (waiter: Waiter) => boolean): void {
    const meant = this.#waiting.filter(isMeant);
    // Those that came first have what there is.
    const rejected = new Set(meant.slice(Math.max(0, meant.length - count)));
    this.#waiting = this.#waiting.filter((waiter) => !rejected.has(waiter));
    for (const waiter of rejected) waiter.reject(errorOf(fault));
  }

  #refuse(fault: Failure): void {
    this.#permitsAsked = 0;
    this.#callsAsked = 0;
    this.#spareAsked = 0;
    const all = [...this.#waiting, ...this.#claims.values()];
    this.#waiting = [];
    this.#claims.clear();
    this.#termsWaiters?.reject(errorOf(fault));
    this.#termsWaiters = null;
    this.#seconds.cancel();
    for (const { reject } of all) reject(errorOf(fault));
  }

  /** Where the upstream sets a hard bound, nothing stays open for longer than the permits last. */
  #arm(): void {
    clearTimeout(this.#watch);
    if (!this.#isBounded) return;
    const nowMs = Date.now();
    const leftMs = Math.max(0, this.#untilMs - nowMs);
    this.#renewAtMs = nowMs + leftMs / 2;
    this.#watch = setTimeout(() => this.#expire(false), leftMs);
    if (this.#busy.size > 0) this.#stir(Math.max(RENEW_INTERVAL_MS_MIN, leftMs / 2));
  }

  #expire(hasAsked: boolean): void {
    const lateMs = Date.now() - this.#untilMs;
    if (lateMs < 0) return this.#arm();
    // Where a timer is late, so is what renews: the whole process has been busy, governors too.
    if (lateMs > TIMER_LATE_MS && !hasAsked) {
      this.#renewAtMs = 0;
      this.#stir(0);
      this.#watch = setTimeout(() => this.#expire(true), TIMER_LATE_MS);
      return;
    }
    if (this.#idle.length > 0) this.#news.note(HAND_NEWS_MS).back.push(...this.#idle.map(({ id }) => id));
    this.#idle = [];
    for (const leave of this.#busy) leave.cut?.();
  }
}

/** A fault that is the handler's own. */
export const refused = (detail: string): HostError => errorOf(failure("permission_denied", detail));
