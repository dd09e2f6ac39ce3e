/** `Drover-Reserve: calls=1, tokens=800`: what a call sets aside in the budget of its goal. */
import { failure } from "../../../shared/errors.ts";
import { BUDGET_MAX } from "../../../shared/limits.ts";
import type { Reserve } from "../../../shared/protocol/task.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";

const ENTRY = /^(calls|tokens|costMicros)=([0-9]{1,15})$/;
const HEADER_CHARS_MAX = 256;

/** Undefined where there is no such header. */
export function parseReserve(header: string | undefined): Answer<Reserve | undefined> {
  if (header === undefined) return ok(undefined);
  const reserve: Partial<Record<keyof Reserve, number>> = {};
  for (const entry of header.slice(0, HEADER_CHARS_MAX).split(",")) {
    const [, name, digits] = ENTRY.exec(entry.trim()) ?? [];
    const value = Number(digits);
    if (name === undefined || value > BUDGET_MAX || (name === "calls" && value < 1)) return err(bad());
    reserve[name as keyof Reserve] = value;
  }
  return ok(reserve);
}

const bad = () =>
  failure("invalid_request", "Drover-Reserve must be such as: calls=1, tokens=800, costMicros=1200; a call is at least one");
