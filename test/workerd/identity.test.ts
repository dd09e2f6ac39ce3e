/** JSON Web Tokens of an identity provider, whose keys are at a real HTTP server. */
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { beforeAll, expect, inject, test } from "vitest";
import { call, problemIn } from "./edge-kit.ts";

const ISSUER = "https://identity.test";
const AUDIENCE = "drover";
let url = "";
const keys: Record<string, Awaited<ReturnType<typeof generateKeyPair>>> = {};

async function publish(kids: readonly string[], at: string): Promise<void> {
  const all = await Promise.all(kids.map(async (kid) => ({ ...(await exportJWK(keys[kid]!.publicKey)), kid, alg: "ES256", use: "sig" })));
  await fetch(at, { method: "PUT", body: JSON.stringify({ keys: all }) });
}

beforeAll(async () => {
  url = `${inject("upstreamUrl")}/kept/jwks?name=jwks`;
  for (const kid of ["one", "two", "strange"]) keys[kid] = await generateKeyPair("ES256", { extractable: true });
  await publish(["one", "two"], url);
});

/** Also ones that no provider would write. */
type Claims = Readonly<Record<string, unknown>>;

interface Forged {
  readonly kid?: string;
  readonly signedBy?: string;
  readonly alg?: string;
}

async function jwt(claims: Claims = {}, { kid = "one", signedBy = kid, alg = "ES256" }: Forged = {}): Promise<string> {
  const all = { iss: ISSUER, aud: AUDIENCE, sub: "ann", exp: Math.floor(Date.now() / 1_000) + 600, scope: "openid read submit", ...claims };
  return new SignJWT(all).setProtectedHeader({ alg, kid }).sign(keys[signedBy]!.privateKey);
}

const identity = (over: object = {}) =>
  JSON.stringify({
    issuer: ISSUER,
    audience: AUDIENCE,
    jwksUrl: url,
    algorithms: ["ES256"],
    claims: [{ claim: "scope", type: "scopes" }],
    ...over,
  });

const ask = (token: string, method = "GET", path = "/v1/goals", over: object = {}): Promise<Response> =>
  call(method, path, {
    token,
    env: { IDENTITY: identity(over) },
    ...(method === "POST" && { body: "{}", headers: { "content-type": "application/json" } }),
  });

test("a caller whom the provider speaks for has what the claims say, and nothing more", async () => {
  const token = await jwt();
  expect((await ask(token)).status).toBe(200);
  expect((await ask(token, "POST")).status).toBe(201);
  expect((await problemIn(await ask(token, "GET", "/v1/upstreams"))).detail).toContain('caveat "scopes"');
  expect((await ask(await jwt({ scope: "openid profile" }))).status).toBe(403);
  expect((await ask(await jwt({ scope: ["read"] }))).status).toBe(200);
});

test.each<[string, Claims, Forged]>([
  ["of another issuer", { iss: "https://other.test" }, {}],
  ["for another audience", { aud: "other" }, {}],
  ["that has expired", { exp: 1_700_000_000 }, {}],
  ["that is not valid yet", { nbf: 4_000_000_000 }, {}],
  ["without a subject", { sub: undefined }, {}],
  ["without an end", { exp: undefined }, {}],
  ["signed by another key", {}, { signedBy: "strange" }],
  ["of a key that is not published", {}, { kid: "strange" }],
  ["without the claim that says its scopes", { scope: undefined }, {}],
  ["whose claim is of another kind", { scope: 7 }, {}],
])("a token %s is refused, also after a right one was let in", async (_what, claims, forged) => {
  expect((await ask(await jwt())).status).toBe(200);
  expect((await problemIn(await ask(await jwt(claims, forged)))).code).toBe("unauthorized");
});

test("an algorithm that is not listed is refused, and so is none at all", async () => {
  const token = await jwt();
  expect((await ask(token, "GET", "/v1/goals", { algorithms: ["RS256"] })).status).toBe(401);
  const [, payload] = token.split(".");
  const none = btoa(JSON.stringify({ alg: "none" })).replaceAll("=", "");
  for (const forged of [`${none}.${payload}.`, `${none}.${payload}.AAAA`]) expect((await ask(forged)).status).toBe(401);
});

test("claims become caveats: goals, lists, depth, and what is optional only where it is there", async () => {
  const claims = [
    { claim: "scope", type: "scopes" },
    { claim: "goal", type: "goal", optional: true },
    { claim: "methods", type: "methods" },
  ];
  const made = await ask(await jwt({ methods: "GET HEAD" }), "POST", "/v1/goals", { claims, caveats: [{ type: "depth", max: 2 }] });
  const goal = await made.json<{ id: string; policies: object[] }>();
  expect(goal.policies).toEqual([{ maxDepth: 2, methods: ["GET", "HEAD"] }]);
  const bound = await jwt({ methods: "GET", goal: goal.id });
  expect((await ask(bound, "GET", `/v1/goals/${goal.id}`, { claims })).status).toBe(200);
  expect((await ask(bound, "GET", "/v1/goals", { claims })).status).toBe(403);
});

test("whoever comes with such a token can have one of Drover's, which ends no later", async () => {
  const made = await ask(await jwt(), "POST", "/v1/tokens");
  const { token } = await made.json<{ token: string }>();
  expect((await call("GET", "/v1/goals", { token })).status).toBe(200);
  expect((await call("GET", "/v1/upstreams", { token })).status).toBe(403);
  const caveats = JSON.parse(atob(token.split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/"))) as { type: string; subject?: string }[];
  expect(caveats[0]!.subject).toBe("identity:ann");
  expect(caveats.map(({ type }) => type)).toContain("expires");
});

test("the keys are fetched once for many callers, and a provider that does not answer is not the caller's fault", async () => {
  const counts = `${inject("upstreamUrl")}/counts?name=jwks`;
  const total = async (): Promise<number> => (await (await fetch(counts)).json<{ total: number }>()).total;
  await ask(await jwt());
  const before = await total();
  for (let i = 0; i < 20; i++) expect((await ask(await jwt({ jti: String(i) }, { kid: i % 2 === 0 ? "one" : "two" }))).status).toBe(200);
  expect((await total()) - before).toBeLessThanOrEqual(1);
  const problem = await problemIn(await ask(await jwt(), "GET", "/v1/goals", { jwksUrl: `${inject("upstreamUrl")}/status/500` }));
  expect(problem).toMatchObject({ status: 503, code: "temporary_reduced_capacity" });
});

test.each<[string, object | string]>([
  ["that is not JSON", "{"],
  ["without algorithms", { algorithms: [] }],
  ["with a shared secret's algorithm", { algorithms: ["HS256"] }],
  ["that restricts no scopes", { claims: [] }],
  ["whose scopes are optional", { claims: [{ claim: "scope", type: "scopes", optional: true }] }],
  ["with a caveat that is none", { caveats: [{ type: "colour" }] }],
])("a deployment with an IDENTITY %s lets nobody in, and says what is wrong", async (_what, over) => {
  const answer = await call("GET", "/v1/goals", { env: { IDENTITY: typeof over === "string" ? over : identity(over) } });
  expect((await problemIn(answer)).detail).toContain("IDENTITY");
});

test("without IDENTITY such a token is no token", async () => {
  expect((await call("GET", "/v1/goals", { token: await jwt() })).status).toBe(401);
});
