/**
 * A second try of a passed call that takes longer than its upstream's calls
 * mostly do (Dean and Barroso, "The tail at scale", 2013), where the gate lets
 * it be made. The better of the two answers is the caller's, by its head; the
 * other try is cut off. Both have the first one's time.
 */
import { type CallEnd, isDecisive, isLaterTaken, NOT_SENT } from "../../../shared/policy/outcome.ts";
import { within } from "../../kit/within.ts";
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

/** Leave for a second try beside this one, at another origin if possible; null for none. Never rejects. */
export type AskForSecond = (first: Attempt) => Promise<Attempt | null>;

const isAnswer = (answer: Response | CallEnd): answer is Response => answer instanceof Response;
const endOf = (answer: Response | CallEnd): Pick<CallEnd, "outcome" | "status"> =>
  isAnswer(answer) ? { outcome: "answered", status: answer.status } : answer;
const isGood = (answer: Response | CallEnd): boolean => isAnswer(answer) && isDecisive("answered", answer.status);

/** Sends the first try and, if it is late, a second one. `ask` is null where nothing may be sent twice. */
export async function raced(attempt: Attempt, ask: AskForSecond | null, waitUntil: (work: Promise<unknown>) => void): Promise<Tried> {
  const sending = attempt.send();
  const { hedgeAfterMs } = attempt.opening;
  const isPunctual = ask === null || hedgeAfterMs === undefined || (await within(sending, hedgeAfterMs)) !== null;
  if (isPunctual) return { attempt, answer: await sending };
  const asking = ask(attempt);
  const second = await Promise.race([asking, sending.then(() => null)]);
  if (second === null) {
    // It may still come, and goes back unused.
    waitUntil(asking.then((late) => late?.end(NOT_SENT)));
    return { attempt, answer: await sending };
  }
  return better({ attempt, sending }, { attempt: second, sending: second.send(attempt.leftMs) }, waitUntil);
}

/** The first good answer decides. */
async function better(first: Try, second: Try, waitUntil: (work: Promise<unknown>) => void): Promise<Tried> {
  const isSecondAhead = await Promise.race([first.sending.then(() => false), second.sending.then(() => true)]);
  const [ahead, behind] = isSecondAhead ? [second, first] : [first, second];
  const earlier = { attempt: ahead.attempt, answer: await ahead.sending };
  if (isGood(earlier.answer)) {
    waitUntil(behind.attempt.cutOff(behind.sending));
    return earlier;
  }
  // Whoever counts calls hears of it now, and not when the other one has ended.
  if (!isAnswer(earlier.answer)) waitUntil(earlier.attempt.end(earlier.answer));
  const later = { attempt: behind.attempt, answer: await behind.sending };
  const [taken, left] = isLaterTaken(endOf(later.answer), endOf(earlier.answer), isSecondAhead) ? [later, earlier] : [earlier, later];
  waitUntil(isAnswer(left.answer) ? left.attempt.drop(left.answer) : left.attempt.end(left.answer));
  return taken;
}
