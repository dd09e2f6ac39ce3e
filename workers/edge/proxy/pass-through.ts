/**
 * A proxied call from its place in the queue to its answer. What fails before
 * the caller has a byte is tried again where that does no harm; everything
 * else reaches the caller as the upstream said it.
 */
import { type Failure, failure } from "../../../shared/errors.ts";
import { PROXY_RETRIES_MAX } from "../../../shared/limits.ts";
import { SECOND_WAIT_MS } from "../../../shared/limits-hedging.ts";
import { backoffMs } from "../../../shared/policy/backoff.ts";
import { type CallEnd, LEASE_ENDED_STATUS, NOT_SENT } from "../../../shared/policy/outcome.ts";
import type { WholeAnswer } from "../../../shared/rpc-flight.ts";
import type { GateRpc, Opening, PassRequest, PassRpc } from "../../../shared/rpc.ts";
import { mayHaveWritten } from "../coalesce/writes.ts";
import { retryAfterMsOf } from "../../kit/retry-after.ts";
import { problem } from "../reply.ts";
import { whenLeft } from "../left.ts";
import { Attempt, letGo, type ProxyCall, type Surroundings } from "./attempt.ts";
import { type AskForSecond, raced } from "./race.ts";

/** A gateway's answers: the next try may reach a better place. */
const RETRIED_STATUSES: ReadonlySet<number> = new Set([502, 503, 504]);

interface Around extends Surroundings {
  readonly gate: GateRpc;
  /** Answers a call that got no permit. */
  readonly refused: (fault: Failure) => Response | Promise<Response>;
  /** Hears of a write before its caller does; null where the call is none. Without headers nobody knows whether it was made. */
  readonly written: ((origin: string, headers: Headers | null) => Promise<void>) | null;
}

interface Call extends ProxyCall {
  /** RFC 9110 §9.2.2: making it twice does no harm. */
  readonly isIdempotent: boolean;
}

type Ask = Omit<PassRequest, "upstream" | "avoid" | "isSecond">;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * One message asks for the place and waits for the permit; null where its caller
 * has gone meanwhile. Who goes away before that leaves the line, unless others
 * wait for its call: those with the same key do not, as long as nothing has been sent.
 */
async function enter({ gate, left, waitUntil }: Around, { witness }: Call, request: PassRequest) {
  const entering = gate.enter(request);
  let hasEntered = false;
  let hasLeft = false;
  whenLeft(left, () => {
    hasLeft = !hasEntered && witness?.isWanted() !== true;
    if (hasLeft) waitUntil(entering.then((pass) => pass.done(NOT_SENT)).catch(() => undefined));
  });
  const [pass, opened] = await Promise.all([entering, (entering as unknown as PassRpc).opened()]);
  hasEntered = true;
  return [pass, hasLeft ? null : opened] as const;
}

/** The answer to a caller that has gone. */
const toNobody = (): Response => problem(failure("temporary_reduced_capacity", "the caller has gone"));

function replayed({ status, headers, body }: WholeAnswer): Response {
  const all = new Headers(headers as [string, string][]);
  all.set("idempotent-replayed", "true");
  return new Response(body.byteLength === 0 ? null : body, { status, headers: all, encodeBody: "manual" });
}

/** Why there is no answer, for the caller. */
function failed({ method, upstream, isIdempotent }: Call, { outcome, status }: CallEnd, timeoutMs: number): Response {
  const name = `${method} to the upstream "${upstream}"`;
  if (outcome === "timeout") return problem(failure("upstream_timeout", `${name} was not answered within ${timeoutMs} ms`));
  const why = status === LEASE_ENDED_STATUS ? "was cut off, because its permit was not renewed in time" : "broke off before an answer came";
  if (isIdempotent) return problem(failure("upstream_error", `${name} ${why}`));
  return problem(failure("outcome_unknown", `${name} ${why}; it may have had its effect`));
}

/** Some upstreams make up statuses, which no response of the platform can have. */
const isPassable = ({ status }: Response): boolean => status >= 200 && status <= 599;

function unpassable({ method, upstream }: Call, { status }: Response): Response {
  return problem(
    failure("upstream_error", `${method} to the upstream "${upstream}" was answered with ${status}, which is no status of HTTP`),
  );
}

export async function passThrough(around: Around, call: Call, ask: Ask): Promise<Response> {
  const untilMs = Date.now() + ask.waitMs;
  const retries = call.isIdempotent && call.body === null ? PROXY_RETRIES_MAX : 0;
  const avoid: number[] = [];
  let isInDoubt = false;
  let last: Opening | null = null;
  for (let tries = 0; ;) {
    const askedAtMs = Date.now();
    const waitMs = Math.max(0, untilMs - askedAtMs);
    const [pass, opened] = await enter(around, call, { ...ask, upstream: call.upstream, waitMs, avoid });
    if (opened === null || !opened.ok || "replay" in opened.value) letGo(pass);
    if (opened === null || !opened.ok) {
      if (isInDoubt && last !== null) await tell(around, last, null);
      return opened === null ? toNobody() : around.refused(opened.error);
    }
    if ("replay" in opened.value) return replayed(opened.value.replay);
    last = opened.value.opening;
    const first = new Attempt(around, call, pass, opened.value.opening, askedAtMs);
    if (!(await first.hasPermit())) continue;
    const racing = raced(first, isHedgeable(call) ? secondOf(around, call, ask, avoid) : null, around.waitUntil);
    // Its caller may go; those who come with the same key want the answer.
    if (call.isKeyed) around.waitUntil(racing);
    const { attempt, answer } = await racing;
    isInDoubt ||= !(answer instanceof Response) || mayHaveWritten(answer.status);
    if (answer instanceof Response) {
      if (tries >= retries || !isRetried(answer, untilMs)) {
        // An earlier try may have written, whatever this one says.
        if (isInDoubt) await tell(around, attempt.opening, answer.headers);
        if (isPassable(answer)) return attempt.pass(answer);
        await attempt.drop(answer);
        return unpassable(call, answer);
      }
      await attempt.drop(answer);
    } else {
      await attempt.end(answer);
      if (tries >= retries || answer.outcome === "timeout") {
        await tell(around, attempt.opening, null);
        return failed(call, answer, attempt.opening.timeoutMs);
      }
    }
    avoid.push(attempt.opening.place);
    tries++;
    await pause(backoffMs(tries, Math.random()));
  }
}

/** Safe to be open twice at once. A key is one call's, and has one answer. */
const isHedgeable = ({ method, body, isKeyed }: Call): boolean => (method === "GET" || method === "HEAD") && body === null && !isKeyed;

/** Asks the gate for leave to make the call a second time. */
function secondOf(around: Around, call: Call, ask: Ask, avoid: readonly number[]): AskForSecond {
  return async (first) => {
    const askedAtMs = Date.now();
    try {
      const request = { ...ask, upstream: call.upstream, avoid: [...avoid, first.opening.place], waitMs: SECOND_WAIT_MS, isSecond: true };
      const [pass, opened] = await enter(around, call, request);
      if (opened?.ok === true && "opening" in opened.value) {
        const attempt = new Attempt(around, call, pass, opened.value.opening, askedAtMs, first);
        return (await attempt.hasPermit()) ? attempt : null;
      }
      letGo(pass);
    } catch {
      // A gate that has gone gives no leave; the first try goes on.
    }
    return null;
  };
}

/** What is kept of what a write has changed ends before its caller can ask for it. */
async function tell({ written, waitUntil }: Around, { origin, isUnshared }: Opening, headers: Headers | null): Promise<void> {
  if (written === null || isUnshared === true) return;
  const telling = written(origin, headers);
  // Its caller may go meanwhile.
  waitUntil(telling);
  await telling;
}

/** An upstream that asks for more time than the caller has is passed on as it is. */
function isRetried({ status, headers }: Response, untilMs: number): boolean {
  const nowMs = Date.now();
  return RETRIED_STATUSES.has(status) && nowMs + retryAfterMsOf(headers.get("retry-after"), nowMs) < untilMs;
}
