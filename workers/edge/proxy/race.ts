/**
 * A second try of a passed call that takes longer than its upstream's calls
 * mostly do (Dean and Barroso, "The tail at scale", 2013), where the gate lets
 * it be made. The better of the two answers is the caller's, by its head; the
 * other try is cut off.
 */
import { type CallEnd, isDecisive, UNSENDABLE_STATUS } from "../../../shared/policy/outcome.ts";
import type { Attempt } from "./attempt.ts";

/** A try, and its answer's head or how it failed before that. */
export interface Tried {
  readonly attempt: Attempt;
  readonly answer: Response | CallEnd;
}

interface Try {
  readonly attempt: Attempt;
  readonly sending: Promise<Response | CallEnd>;
}

/** Leave for a second try elsewhere than at this place, if possible; null for none. Never rejects. */
export type AskForSecond = (place: number) => Promise<Attempt | null>;

const NOT_SENT: CallEnd = { outcome: "not_sent", status: UNSENDABLE_STATUS, ms: 0, retryAfterMs: 0 };

const isGood = (answer: Response | CallEnd): boolean => answer instanceof Response && isDecisive("answered", answer.status);

/** Sends the first try and, if it is late, a second one. `ask` is null where nothing may be sent twice. */
export async function raced(first: Attempt, ask: AskForSecond | null, waitUntil: (work: Promise<unknown>) => void): Promise<Tried> {
  const sending = first.send();
  const { hedgeAfterMs } = first.opening;
  if (ask === null || hedgeAfterMs === undefined || !(await isLate(sending, hedgeAfterMs)))
    return { attempt: first, answer: await sending };
  const asking = ask(first.opening.place);
  const second = await Promise.race([asking, sending.then(() => null)]);
  if (second === null) {
    // It may still come, and goes back unused.
    waitUntil(asking.then((attempt) => attempt?.end(NOT_SENT)));
    return { attempt: first, answer: await sending };
  }
  return better({ attempt: first, sending }, { attempt: second, sending: second.send() }, waitUntil);
}

async function isLate(sending: Promise<unknown>, afterMs: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(true), afterMs);
  const late = await Promise.race([sending.then(() => false), promise]);
  clearTimeout(timer);
  return late;
}

/** The first good answer decides; where there is none, that of the first try. */
async function better(first: Try, second: Try, waitUntil: (work: Promise<unknown>) => void): Promise<Tried> {
  const secondIsAhead = await Promise.race([first.sending.then(() => false), second.sending.then(() => true)]);
  const [ahead, behind] = secondIsAhead ? [second, first] : [first, second];
  const earlier = await ahead.sending;
  if (isGood(earlier)) {
    waitUntil(behind.attempt.cutOff(behind.sending));
    return { attempt: ahead.attempt, answer: earlier };
  }
  const later = await behind.sending;
  const isLater = isGood(later) || behind === first;
  const [taken, other] = isLater ? [behind, ahead] : [ahead, behind];
  const [answer, left] = isLater ? [later, earlier] : [earlier, later];
  waitUntil(left instanceof Response ? other.attempt.drop(left) : other.attempt.end(left));
  return { attempt: taken.attempt, answer };
}
