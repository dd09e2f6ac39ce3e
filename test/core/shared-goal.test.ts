/** What a caller may say of a goal and of an upstream: defaults filled in, every fault with its place. */
import { expect, test } from "vitest";
import * as limits from "../../shared/limits.ts";
import { parseGoal } from "../../shared/protocol/goal.ts";
import { parseUpstream } from "../../shared/protocol/upstream.ts";

function faultsOfGoal(body: unknown): string[] {
  const parsed = parseGoal(body);
  return parsed.ok ? [] : parsed.error.map(({ pointer, detail }) => `${pointer}: ${detail}`);
}

function faultsOfUpstream(body: unknown, name = "search"): string[] {
  const parsed = parseUpstream(name, body);
  return parsed.ok ? [] : parsed.error.map(({ pointer, detail }) => `${pointer}: ${detail}`);
}

test("a goal may be empty, and then has every default", () => {
  expect(parseGoal({})).toEqual({
    ok: true,
    value: {
      spec: { name: "", labels: {}, deadlineMs: null, retentionMs: limits.RETENTION_MS_DEFAULT, completion: {}, sealed: false, weight: 1 },
      tasks: [],
    },
  });
});

test("a goal keeps what was said, and hands its tasks on as they came", () => {
  const spec = {
    name: "research",
    labels: { team: "r-and-d", constructor: "x" },
    deadlineMs: 1,
    retentionMs: 0,
    completion: { minSuccessful: 3, toleratedFailurePercentage: 2.5 },
    sealed: true,
    weight: 2.5,
  };
  expect(parseGoal({ ...spec, tasks: [{ anything: 1 }, null] })).toEqual({ ok: true, value: { spec, tasks: [{ anything: 1 }, null] } });
});

test.for<[string, unknown, string]>([
  ["a list", [], ": must be an object"],
  ["text", "goal", ": must be an object"],
  ["nothing", null, ": must be an object"],
  ["an unknown property", { nme: "x" }, "/nme: is not a property that is known here"],
  ["too long a name", { name: "x".repeat(limits.TITLE_CHARS_MAX + 1) }, "/name: must have at most 256 characters"],
  ["a deadline of nothing", { deadlineMs: 0 }, "/deadlineMs: must be at least 1"],
  ["tasks that are no list", { tasks: {} }, "/tasks: must be Array, not Object"],
  ["too many tasks", { tasks: Array.from({ length: limits.TASKS_PER_REQUEST_MAX + 1 }) }, "/tasks: must have at most 20000 tasks"],
  ["a rule that is a list", { completion: [] }, "/completion: must be an object"],
  ["no weight", { weight: 0 }, "/weight: must be at least 0.001"],
  ["too much weight", { weight: 1_001 }, "/weight: must be at most 1000"],
  ["an unknown rule", { completion: { atLeast: 1 } }, "/completion/atLeast: is not a property that is known here"],
  [
    "a percentage of 101",
    { completion: { toleratedFailurePercentage: 101 } },
    "/completion/toleratedFailurePercentage: must be at most 100",
  ],
  [
    "seventeen labels",
    { labels: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`l${i}`, ""])) },
    "/labels: must have at most 16 labels",
  ],
  ["a label without a name", { labels: { "": "x" } }, "/labels/: a label needs a name"],
])("a goal is refused for %s, with the place", ([, body, fault]) => {
  expect(faultsOfGoal(body)).toEqual([fault]);
});

test("an upstream needs only an origin, and then has every default", () => {
  expect(parseUpstream("search", { origin: "https://Example.org:8443/" })).toEqual({
    ok: true,
    value: {
      name: "search",
      origins: ["https://example.org:8443"],
      maxConcurrency: null,
      ratePerSecond: null,
      tokensPerMinute: null,
      reserve: { tokens: 0, costMicros: 0 },
      usage: { tokens: null, costMicros: null },
      timeoutMs: limits.TIMEOUT_MS_DEFAULT,
      idempotency: "none",
      retry: { maxAttempts: limits.ATTEMPTS_DEFAULT },
      headers: {},
      coalesce: "safe",
      hedge: null,
    },
  });
});

test("an upstream keeps what was said", () => {
  const spec = {
    ...{
      tokensPerMinute: 90_000,
      reserve: { tokens: 500, costMicros: 20 },
      usage: { tokens: "/usage/total~1tokens", costMicros: "/usage/cost" },
    },
    ...{ maxConcurrency: 60, ratePerSecond: 0.5, timeoutMs: 1_000, idempotency: "key" },
    ...{ retry: { maxAttempts: 2 }, headers: { "x-api-key": "s" }, hedge: { quantile: 0.9, budgetPercent: 12 } },
  };
  const parsed = parseUpstream("llm", { ...spec, origins: ["http://127.0.0.1:9/", "http://Two.test"], coalesce: "off" });
  expect(parsed).toEqual({
    ok: true,
    value: { name: "llm", origins: ["http://127.0.0.1:9", "http://two.test"], ...spec, coalesce: "off" },
  });
});

const origin = "http://127.0.0.1:9000";

test.for([
  [false, null],
  [{}, { quantile: 0.95, budgetPercent: 5 }],
  [
    { quantile: 0.99, budgetPercent: 1 },
    { quantile: 0.99, budgetPercent: 1 },
  ],
])("an upstream that says hedge: %j is hedged so: %j", ([hedge, kept]) => {
  expect(parseUpstream("search", { origin, hedge })).toMatchObject({ ok: true, value: { hedge: kept } });
});

test("an origin that is named twice is one", () => {
  expect(parseUpstream("search", { origins: [origin, `${origin}/`] })).toMatchObject({ ok: true, value: { origins: [origin] } });
});

test.for<[string, unknown, RegExp]>([
  ["a list", [], /^: must be an object$/],
  ["no origin", {}, /^: needs exactly one of origin, origins$/],
  ["both forms of origin", { origin, origins: [origin] }, /exactly one of origin, origins/],
  ["no origins", { origins: [] }, /^\/origins: needs at least one origin$/],
  ["seventeen origins", { origins: Array.from({ length: limits.ORIGINS_MAX + 1 }, () => origin) }, /^\/origins: takes at most 16 origins$/],
  ["a path in the origin", { origin: `${origin}/v1` }, /^\/origin: must be http\(s\):\/\/host\[:port\]/],
  ["credentials in the origin", { origin: "http://a:b@example.org" }, /^\/origin: must be http/],
  ["another scheme", { origin: "file:///etc/passwd" }, /^\/origin: must be http/],
  ["no concurrency", { origin, maxConcurrency: 0 }, /^\/maxConcurrency: must be at least 1$/],
  ["no tokens", { origin, tokensPerMinute: 0, reserve: { tokens: 1 } }, /^\/tokensPerMinute: must be at least 1$/],
  ["tokens that nobody counts", { origin, tokensPerMinute: 1 }, /^: has tokensPerMinute, so it needs usage.tokens or reserve.tokens/],
  ["a pointer that is none", { origin, usage: { tokens: "usage" } }, /^\/usage\/tokens: must be a JSON pointer/],
  ["a rate of nothing", { origin, ratePerSecond: 0 }, /^\/ratePerSecond: must be at least 0.01$/],
  ["an endless rate", { origin, ratePerSecond: Number.POSITIVE_INFINITY }, /^\/ratePerSecond: must be at most 100000$/],
  ["hedging that is merely wished", { origin, hedge: true }, /^\/hedge: must be an object$/],
  ["a quantile that is none", { origin, hedge: { quantile: 95 } }, /^\/hedge\/quantile: must be at most 0.999$/],
  ["a budget that stragglers get nothing of", { origin, hedge: { budgetPercent: 2 } }, /^\/hedge: has a budgetPercent below 100/],
  ["a header that Drover sets", { origin, headers: { "Idempotency-Key": "x" } }, /^\/headers\/Idempotency-Key: is set by Drover/],
  ["an unknown property", { origin, url: "x" }, /^\/url: is not a property that is known here$/],
])("an upstream is refused for %s, with the place", ([, body, fault]) => {
  const faults = faultsOfUpstream(body);
  expect(faults).toHaveLength(1);
  expect(faults[0]).toMatch(fault);
});

test.for(["", "Search", "a b", "-a", "a/b", "x".repeat(64)])("an upstream cannot be named '%s'", (name) => {
  expect(faultsOfUpstream({ origin }, name)).toEqual([expect.stringMatching(/^: the name must be 1 to 63 of a-z/)]);
});
