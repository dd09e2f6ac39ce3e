/** The compiled policy against an interpreter that is as plain as it can be: one rule at a time, patterns by recursion. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { matches, narrow, type Policy, rulesOf, type Verdict } from "../../shared/policy/rules.ts";
import { parsePolicy } from "../../shared/protocol/policy.ts";

interface Call {
  readonly upstream: string;
  readonly method: string;
  readonly path: string;
}

function fits(pattern: string, text: string): boolean {
  if (pattern === "") return text === "";
  if (pattern[0] === "*") return fits(pattern.slice(1), text) || (text !== "" && fits(pattern, text.slice(1)));
  return text !== "" && pattern[0] === text[0] && fits(pattern.slice(1), text.slice(1));
}

const some = (list: readonly string[] | undefined, text: string): boolean =>
  list === undefined || list.some((pattern) => fits(pattern, text));
/** What a browser makes of the path, without its query. */
const decoded = (path: string): string => path.split("?")[0]!.replaceAll("%61", "a").replaceAll("%2f", "%2F");
const lax = (path: string): string => {
  let text = path.toLowerCase();
  while (text.includes("//")) text = text.replace("//", "/");
  return text.length > 1 && text.endsWith("/") ? text.slice(0, -1) : text;
};

function interpreted(policies: readonly Policy[], { upstream, method, path }: Call): "allowed" | "needs approval" | "denied" {
  const plain = decoded(path);
  const hides = plain.includes("%2F");
  let needs = false;
  for (const { upstreams, methods, paths, requireApproval = [] } of policies) {
    if (!some(upstreams, upstream) || !some(methods, method)) return "denied";
    if (paths !== undefined && (hides || !some(paths, plain))) return "denied";
    for (const rule of requireApproval) {
      if (!fits(rule.upstream, upstream) || !fits(rule.method ?? "*", method)) continue;
      needs ||= rule.path === undefined || hides || fits(lax(rule.path), lax(plain));
    }
  }
  return needs ? "needs approval" : "allowed";
}

const pattern = fc.constantFrom("a", "b", "ab", "*", "a*", "*b", "a*b", "**");
const method = fc.constantFrom("GET", "POST", "*", "P*");
const glob = fc.constantFrom("/a", "/a/*", "*", "/*/b", "/A", "/a/b/", "/ab");
const listOf = (item: fc.Arbitrary<string>): fc.Arbitrary<string[]> => fc.array(item, { maxLength: 3 });
const policy: fc.Arbitrary<Policy> = fc.record(
  {
    upstreams: listOf(pattern),
    methods: listOf(method),
    paths: listOf(glob),
    functions: listOf(pattern),
    queues: listOf(pattern),
    maxDepth: fc.nat(5),
    maxChildrenPerTask: fc.nat(5),
    requireApproval: fc.array(fc.record({ upstream: pattern, method, path: glob }, { requiredKeys: ["upstream"] }), { maxLength: 2 }),
  },
  { requiredKeys: [] },
);
const call: fc.Arbitrary<Call> = fc.record({
  upstream: fc.constantFrom("a", "b", "ab", "abb"),
  method: fc.constantFrom("GET", "POST", "PUT"),
  path: fc.constantFrom("/a", "/a/b", "/b", "/", "/a?q=/b", "/%61", "/a%2fb", "/a//b", "/A/B", "/a/b/", "/ab"),
});
const said = (verdict: Verdict): string => (typeof verdict === "string" ? verdict : "denied");

test("the compiled check says what the plain one says, also when it is asked again", () => {
  const seen = new Map<string, number>();
  fc.assert(
    fc.property(fc.array(policy, { maxLength: 4 }), fc.array(call, { minLength: 1, maxLength: 12 }), (policies, calls) => {
      const rules = rulesOf([
        { from: "the goal's policy", policies: policies.slice(0, 2) },
        { from: "the token", policies: policies.slice(2) },
      ]);
      for (const each of [...calls, ...calls]) {
        const verdict = rules === null ? "allowed" : said(rules.call(each.upstream, each.method, each.path));
        seen.set(verdict, (seen.get(verdict) ?? 0) + 1);
        expect(verdict, JSON.stringify(each)).toBe(interpreted(policies, each));
      }
      for (const name of ["a", "b", "ab"]) {
        expect(said(rules?.work(name) ?? "allowed")).toBe(policies.every(({ queues }) => some(queues, name)) ? "allowed" : "denied");
        expect(said(rules?.run(name) ?? "allowed")).toBe(policies.every(({ functions }) => some(functions, name)) ? "allowed" : "denied");
      }
      const depths = policies.flatMap(({ maxDepth }) => maxDepth ?? []);
      expect(rules?.depth?.max ?? null).toBe(depths.length === 0 ? null : Math.min(...depths));
    }),
    { numRuns: 5_000 },
  );
  for (const verdict of ["allowed", "denied", "needs approval"]) expect(seen.get(verdict), verdict).toBeGreaterThan(200);
});

test("a policy more never allows more, in whatever order", () => {
  const rank = { denied: 0, "needs approval": 1, allowed: 2 };
  fc.assert(
    fc.property(fc.array(policy, { maxLength: 3 }), policy, call, (policies, more, { upstream, method, path }) => {
      const verdict = (all: readonly Policy[]): keyof typeof rank =>
        said(rulesOf([{ from: "x", policies: all }])?.call(upstream, method, path) ?? "allowed") as keyof typeof rank;
      expect(rank[verdict(narrow(policies, [more], 0))]).toBeLessThanOrEqual(rank[verdict(policies)]);
      expect(verdict([more, ...policies])).toBe(verdict([...policies, more]));
    }),
    { numRuns: 3_000 },
  );
});

test("a pattern matches as the plain one does, and a hostile one is answered at once", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom("a", "b", "*"), maxLength: 8 }),
      fc.string({ unit: fc.constantFrom("a", "b", "*"), maxLength: 10 }),
      (a, b) => {
        expect(matches(a, b)).toBe(fits(a, b));
      },
    ),
    { numRuns: 20_000 },
  );
  expect(matches("*a".repeat(120), "a".repeat(8_000))).toBe(true);
  expect(matches(`${"*a".repeat(120)}b`, "a".repeat(8_000))).toBe(false);
});

test("a refusal names the rule and where it is from", () => {
  const rules = rulesOf([
    { from: "the tenant's policy", policies: [{ upstreams: ["*"] }] },
    { from: "the goal's policy", policies: [{}, { methods: ["GET"] }] },
  ])!;
  expect(rules.call("a", "POST", "/")).toEqual({
    rule: "methods",
    detail: 'the goal\'s policy does not allow the method POST (rule "methods")',
  });
});

test("what a goal in a goal inherits of depth is what its task's depth leaves", () => {
  expect(narrow([{ maxDepth: 5 }, { upstreams: ["a"] }, { maxDepth: 1 }], [{ maxDepth: 9 }], 2)).toEqual([
    { maxDepth: 3 },
    { upstreams: ["a"] },
    { maxDepth: 0 },
    { maxDepth: 9 },
  ]);
});

test.each<[object, string]>([
  [{ upstream: ["a"] }, "/upstream"],
  [{ upstreams: "a" }, "/upstreams"],
  [{ methods: ["get"] }, "/methods/0"],
  [{ paths: ["a"] }, "/paths/0"],
  [{ paths: ["/%61"] }, "/paths/0"],
  [{ paths: ["/a?b"] }, "/paths/0"],
  [{ maxDepth: -1 }, "/maxDepth"],
  [{ requireApproval: [{ method: "GET" }] }, "/requireApproval/0/upstream"],
])("a policy that is not one is refused with its place: %j", (body, pointer) => {
  const parsed = parsePolicy(body);
  expect(parsed.ok ? null : parsed.error[0]!.pointer).toBe(pointer);
});
