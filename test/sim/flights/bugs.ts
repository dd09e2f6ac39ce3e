/** Bugs planted in the world of flights. */
import type { Bug } from "../bugs.ts";

const STEP = "durable-objects/flight/core/step.ts";
const core = (name: string): string => `durable-objects/goal/core/${name}.ts`;

export const FLIGHT_BUGS: Readonly<Record<string, Bug>> = {
  "two-leaders": {
    says: "whoever comes leads, although somebody does",
    file: STEP,
    from: "  flight.waiting.add(place);\n  state.waiting++;\n",
    to: '  news.push({ key, place, what: { kind: "lead" } });\n',
  },
  "join-late": {
    says: "whoever asks once an answer has begun to come is answered by it",
    file: STEP,
    from: "      take(state, key, flight);\n      if (flight.waiting.size === 0",
    to: "      if (flight.waiting.size === 0",
  },
  "wait-on": {
    says: "however often a call fails, the others wait for the next one",
    file: STEP,
    from: "++flight.failures < FLIGHT_FAILURES_MAX",
    to: "++flight.failures > 0",
  },
  "strand-followers": {
    says: "when a leader goes, those who wait are forgotten",
    file: STEP,
    from: '    case "leave":\n      pass(state, nowMs, key, flight, news);\n',
    to: '    case "leave":\n      take(state, key, flight);\n      state.waiting -= flight.waiting.size;\n',
  },
  "keep-stale": {
    says: "an answer is given on when it is not fresh any more",
    file: STEP,
    from: "if (kept !== undefined && kept.untilMs > nowMs) {",
    to: "if (kept !== undefined) {",
  },
  "one-by-one": {
    says: "an answer that is for one alone lets the next one go, not all",
    file: STEP,
    from: 'if (request.how === "failed" && ++flight',
    to: 'if (request.how === "alone" || ++flight',
  },
  "lease-for-ever": {
    says: "a leader that is not heard of leads on",
    file: STEP,
    from: "for (const [key, flight] of state.flights) if (flight.leaseUntilMs <= nowMs) pass(state, nowMs, key, flight, news);",
    to: "",
  },
  "renew-nothing": {
    says: "a leader that says that it is there is not believed",
    file: STEP,
    from: '    case "renew":\n      flight.leaseUntilMs = nowMs + state.leaseMs;\n',
    to: '    case "renew":\n',
  },
  "keep-written": {
    says: "what is kept outlives a write to it",
    file: STEP,
    from: "  for (const key of state.kept.keys()) if (isMeant(key)) drop(state, key);\n",
    to: "",
  },
  "keep-outdated": {
    says: "the answer to a call that a write has overtaken is kept",
    file: STEP,
    from: "flight.isOutdated || flight.beganAtMs",
    to: "flight.beganAtMs",
  },
  "join-outdated": {
    says: "whoever asks after a write waits for a call that began before it",
    file: STEP,
    from: "    state.flights.delete(key);\n    state.landing.set(flight.leader, { key, flight });\n",
    to: "",
  },
  "renew-unknown": {
    says: "a goal renews what it does not know that it leads",
    file: "durable-objects/flight/goals.ts",
    from: "for (const key of renews) this",
    to: "if (renews.length + asks.length > 0) for (const key of this.#flights.flights.keys()) this",
  },
  "forget-crew": {
    says: "a result is for the captain alone",
    file: core("lifecycle"),
    from: "  for (const other of crew) if",
    to: "  for (const other of crew.slice(0, 0)) if",
  },
  "lead-unasked": {
    says: "whoever waits for no other task of its goal calls without the lead",
    file: core("flights"),
    from: "group === undefined || group.captain !== task || !group.isLeading;",
    to: "group !== undefined && group.captain !== task;",
  },
  "ask-once": {
    says: "what a shard did not answer is not asked again",
    file: core("flight-turn"),
    from: "  const isWhole = nowMs >= soft.wholeAtMs + WHOLE_AFTER_MS;",
    to: "  const isWhole = soft.wholeAtMs === 0;",
  },
};
