/** Waiting for the answer to a call that another makes, and getting it, as far as one may see it. */
import type { Failure } from "../../../shared/errors.ts";
import { problem } from "../reply.ts";
import type { Ask } from "./admissions.ts";
import { responseOf } from "./answer.ts";
import type { Flight } from "./flights.ts";

export interface Waiting {
  /** Whom the answer is for, as far as permissions go. */
  readonly authority: string;
  /** Of any request that waits. */
  readonly refusal: Ask;
}

/** The answer to whoever waits, or how the call ended without one. */
export async function waitFor(
  flight: Flight,
  { authority, refusal }: Waiting,
  untilMs: number,
): Promise<Response | "alone" | "failed" | "late" | "gone"> {
  const { admissions } = flight;
  const nowMs = Date.now();
  admissions.prepare(authority, nowMs, refusal);
  const outcome = await flight.follow(untilMs);
  if (outcome.kind !== "answer") return outcome.kind;
  const known: Failure | null | undefined = admissions.verdict(authority, nowMs);
  const verdict = known === undefined ? await admissions.find(authority, nowMs, refusal) : known;
  return verdict === null ? responseOf(outcome.answer) : problem(verdict);
}
