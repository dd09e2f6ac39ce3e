/**
 * A second try of a function's call that takes longer than its upstream's calls
 * mostly do (Dean and Barroso, "The tail at scale", 2013), where the gate lets
 * it be made. The first good answer is the handler's, and the other try is cut
 * off. Both have the first one's time.
 */
import { ABORT_MS } from "../../../shared/limits.ts";
import type { Amounts } from "../../../shared/policy/account.ts";
import { type CallEnd, isDecisive, isLaterTaken, LEASE_ENDED_STATUS, NOT_SENT } from "../../../shared/policy/outcome.ts";
import { priceOf } from "../../../shared/policy/price.ts";
import { within } from "../../kit/within.ts";
import type { Leave } from "./leave.ts";
import type { Payment } from "./purse.ts";
import { type Caller, send, type Tried } from "./send.ts";
import type { WantedCall } from "./wanted.ts";

/** A timer that is so late shows that the process stood still: answers that came meanwhile are read first. */
const TIMER_LATE_MS = 5;
const READ_MS = 25;
/** Charged as if it had had its effect; it says nothing of its upstream. */
const BEATEN: CallEnd = { outcome: "broken", status: LEASE_ENDED_STATUS, ms: 0, retryAfterMs: 0 };

/** A try and its leave, which goes back once. */
export class Held {
  readonly #caller: Caller;
  readonly leave: Leave;
  readonly #price: Amounts;
  readonly #payment: Payment | null;
  #isSettled = false;

  constructor(caller: Caller, leave: Leave, price: Amounts, payment: Payment | null) {
    this.#caller = caller;
    this.leave = leave;
    this.#price = price;
    this.#payment = payment;
  }

  settle(end: CallEnd): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#caller.slice.give(this.leave, end);
    this.#caller.charge(this.#price, this.#payment, end);
  }

  /** Another try was better. It is charged now, because the run may end; its permit is in use until the upstream has noticed. */
  beaten(end: CallEnd, hasEnded: Promise<unknown>): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#caller.charge(this.#price, this.#payment, end);
    this.leave.cut?.();
    const noticed = end === NOT_SENT ? hasEnded : hasEnded.then(() => new Promise((resolve) => setTimeout(resolve, ABORT_MS)));
    this.#caller.during(noticed.then(() => this.#caller.slice.give(this.leave, end)));
  }
}

interface Try {
  readonly held: Held;
  readonly sending: Promise<Tried>;
  /** When it left; null where it has not. */
  readonly begun: { atMs: number | null };
}

function begin(caller: Caller, call: WantedCall, key: string, held: Held, timeoutMs: number, hear?: () => void): Try {
  const begun: Try["begun"] = { atMs: null };
  const sending = send(caller, call, key, held.leave, timeoutMs, () => {
    begun.atMs = Date.now();
    hear?.();
  });
  return { held, sending, begun };
}

/** What holds a lock is sent once: the try that is beaten might outlive it. */
function mayBeTwice({ headers }: Caller, call: WantedCall, { terms }: Leave): boolean {
  return (call.mayBeTwice ?? terms.isKeyed) && headers["drover-fence"] === undefined;
}

/** Sends the call and, where it is late and that may be, once more. Both tries are settled. Never rejects. */
export async function sendRaced(caller: Caller, call: WantedCall, key: string, held: Held): Promise<Tried> {
  const { leave } = held;
  const timeoutMs = call.timeoutMs ?? leave.terms.timeoutMs;
  const { promise: hasBegun, resolve: hear } = Promise.withResolvers<void>();
  const first = begin(caller, call, key, held, timeoutMs, hear);
  const { sending, begun } = first;
  const alone = async (): Promise<Tried> => {
    const tried = await sending;
    held.settle(tried.end);
    return tried;
  };
  const { hedgeAfterMs } = caller.slice;
  if (hedgeAfterMs === null || !mayBeTwice(caller, call, leave)) return alone();
  await Promise.race([hasBegun, sending]);
  if (begun.atMs === null || !(await isLate(sending, begun.atMs, hedgeAfterMs))) return alone();
  const asking = caller.slice.second(leave, call.reserve);
  const second = await Promise.race([asking, sending.then(() => null)]);
  if (second === null) {
    // It may still come, and goes back unused.
    void asking.then((late) => late !== null && caller.slice.give(late, NOT_SENT));
    return alone();
  }
  const other = new Held(caller, second, priceOf(second.terms, call.reserve), null);
  return better(first, begin(caller, call, key, other, Math.max(0, begun.atMs + timeoutMs - Date.now())));
}

async function isLate(sending: Promise<Tried>, begunAtMs: number, afterMs: number): Promise<boolean> {
  if ((await within(sending, afterMs)) !== null) return false;
  if (Date.now() - begunAtMs < afterMs + TIMER_LATE_MS) return true;
  return (await within(sending, READ_MS)) === null;
}

/** The first good answer decides. */
async function better(first: Try, second: Try): Promise<Tried> {
  const isSecondAhead = await Promise.race([first.sending.then(() => false), second.sending.then(() => true)]);
  const [ahead, behind] = isSecondAhead ? [second, first] : [first, second];
  const earlier = await ahead.sending;
  ahead.held.settle(earlier.end);
  if (isDecisive(earlier.end.outcome, earlier.end.status)) {
    behind.held.beaten(behind.begun.atMs === null ? NOT_SENT : BEATEN, behind.sending);
    return earlier;
  }
  const later = await behind.sending;
  behind.held.settle(later.end);
  return isLaterTaken(later.end, earlier.end, isSecondAhead) ? later : earlier;
}
