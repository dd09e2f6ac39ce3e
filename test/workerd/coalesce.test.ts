/** Equal calls that are passed through: who shares an answer, who does not, and what is fresh. */
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { fullClaims } from "../../shared/token/claims.ts";
import { sharedAnswer } from "../../workers/edge/coalesce/answer.ts";
import { type Door, doorOf, passDoor } from "../../workers/edge/coalesce/door.ts";
import { landFlight, newFlight } from "../../workers/edge/coalesce/flights.ts";
import { callerOf } from "../../workers/edge/tokens/caller.ts";
import { problemIn } from "./edge-kit.ts";
import { countsOf } from "./executor-kit.ts";
import { liveOf, newGoal, proxied, send, until, upstream } from "./proxy-kit.ts";

const times = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
const ANSWER = { status: 200, headers: [["x-a", "1"]], body: new Uint8Array([7]) } as const;
const callsOf = async (name: string): Promise<number> => (await countsOf(name)).total;

test("calls that are equal and under way together are one, also where the answer must not be stored", async () => {
  await upstream("herd", { maxConcurrency: 4 });
  const goals = [await newGoal(), await newGoal()];
  const answers = await Promise.all(
    times(300, (i) =>
      proxied("GET", "herd/slow?name=herd-one&text=same&h-cache-control=no-store", { headers: { "drover-goal": goals[i % 2]! } }),
    ),
  );
  expect(new Set(await Promise.all(answers.map((answer) => answer.text())))).toEqual(new Set(["same"]));
  expect(await callsOf("herd-one")).toBe(1);
  const shown = answers.map(({ headers }) => headers.get("cache-status"));
  expect(shown.filter((status) => status === "drover; collapsed")).toHaveLength(299);
  expect(shown).toContain("drover; fwd=miss");
  await until("the one permit is back", async () => (await liveOf("herd")).inFlight === 0);
  expect((await send("GET", `/v1/goals/${goals[1]}/budget`)).status).toBe(200);
  // Later ones are not under way with it.
  await (await proxied("GET", "herd/slow?name=herd-one&text=same&h-cache-control=no-store")).text();
  expect(await callsOf("herd-one")).toBe(2);
});

test("only the goal of who calls is charged", async () => {
  await upstream("charged");
  const goals = [await newGoal(), await newGoal()];
  await Promise.all(
    times(20, async (i) => (await proxied("GET", "charged/slow?name=charged", { headers: { "drover-goal": goals[i % 2]! } })).text()),
  );
  const spent = async (goal: string): Promise<number> => {
    const { budget } = await (
      await send("GET", `/v1/goals/${goal}`)
    ).json<{ budget: { spent: { calls: number }; reserved: { calls: number } } }>();
    return budget.spent.calls + budget.reserved.calls;
  };
  await until("it is charged", async () => (await spent(goals[0]!)) + (await spent(goals[1]!)) === 1);
});

test("an answer is shared only by calls that the upstream would see as equal", async () => {
  await upstream("apart");
  const call = (headers: Record<string, string>, path = "apart/slow?name=apart&echo") => proxied("GET", path, { headers });
  const answers = await Promise.all([
    call({ "drover-upstream-authorization": "Bearer a" }),
    call({ "drover-upstream-authorization": "Bearer b" }),
    call({ "x-api-key": "a" }),
    call({ "x-api-key": "b" }),
    call({ cookie: "a=1" }),
    call({ accept: "text/html" }),
    call({}, "apart/slow?name=apart&echo&x=1"),
    // These only trace the call.
    call({ "user-agent": "one", traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" }),
    call({ "user-agent": "two" }),
  ]);
  expect((await Promise.all(answers.map((answer) => answer.text()))).slice(0, 2)).toEqual(["Bearer a ", "Bearer b "]);
  expect(await callsOf("apart")).toBe(8);
});

test.each([
  ["set-cookie", "h-set-cookie=a%3D1"],
  ["private", "h-cache-control=private"],
  ["vary-all", "h-vary=*"],
  ["vary-trace", "h-vary=accept,user-agent"],
  ["events", "type=text/event-stream"],
  ["large", "bytes=1100000"],
  ["large-unknown", "bytes=1100000&chunked"],
])("an answer that is for one caller alone lets all others go at once: %s", async (name, query) => {
  await upstream("alone");
  const startedAtMs = Date.now();
  const answers = await Promise.all(times(8, () => proxied("GET", `alone/slow?name=alone-${name}&ms=500&${query}`)));
  await Promise.all(answers.map((answer) => answer.arrayBuffer()));
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
  expect(await callsOf(`alone-${name}`)).toBe(8);
  // Two calls one after the other, not eight.
  expect(Date.now() - startedAtMs).toBeLessThan(8 * 500);
});

test.each([
  ["500", "status=500"],
  ["429", "status=429"],
])("a failure is its caller's alone, and the next one makes the call: %s", async (name, query) => {
  await upstream("failing-once");
  const answers = await Promise.all(times(10, () => proxied("GET", `failing-once/slow?name=once-${name}&once&${query}`)));
  const bodies = await Promise.all(answers.map((answer) => answer.text()));
  expect(answers.filter(({ status }) => status === Number(name))).toHaveLength(1);
  expect(bodies.filter((body) => body === "later")).toHaveLength(9);
  expect(await callsOf(`once-${name}`)).toBe(2);
});

test("an upstream that fails on and on is not waited for one after the other", async () => {
  await upstream("failing-on");
  const startedAtMs = Date.now();
  const answers = await Promise.all(times(12, () => proxied("GET", "failing-on/slow?name=failing-on&status=500&ms=300")));
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 500));
  expect(Date.now() - startedAtMs).toBeLessThan(12 * 300);
});

test("what is not safe is one call only where it says so, and never with two keys", async () => {
  await upstream("posts");
  const post = (name: string, headers: Record<string, string>, body = "x") =>
    proxied("POST", `posts/slow?name=${name}&echo`, { body, headers });
  const all = (answers: Promise<Response>[]) => Promise.all(answers.map(async (answer) => (await answer).text()));
  await all(times(3, () => post("posts-plain", {})));
  expect(await callsOf("posts-plain")).toBe(3);
  expect(new Set(await all(times(5, (i) => post("posts-same", { "drover-coalesce": "true" }, i === 0 ? "other" : "x"))))).toHaveProperty(
    "size",
    2,
  );
  expect(await callsOf("posts-same")).toBe(2);
  await all(times(2, (i) => post("posts-keys", { "drover-coalesce": "true", "idempotency-key": `posts-${i}` })));
  expect(await callsOf("posts-keys")).toBe(2);
  expect(await problemIn(await post("posts-bad", { "drover-coalesce": "yes" }))).toMatchObject({ status: 400, code: "invalid_request" });
});

test("neither an upstream that says so nor a caller that says so shares", async () => {
  await upstream("off", { coalesce: "off" });
  await Promise.all(times(4, async () => (await proxied("GET", "off/slow?name=off")).text()));
  expect(await callsOf("off")).toBe(4);
  await upstream("on");
  await Promise.all(
    times(4, async () => (await proxied("GET", "on/slow?name=on-not", { headers: { "drover-coalesce": "false" } })).text()),
  );
  expect(await callsOf("on-not")).toBe(4);
});

test("one who may not make the call does not get another's answer", async () => {
  await upstream("guarded");
  const ended = await newGoal();
  await send("POST", `/v1/goals/${ended}/cancel`);
  const [mine, theirs] = await Promise.all([
    proxied("GET", "guarded/slow?name=guarded&text=secret"),
    proxied("GET", "guarded/slow?name=guarded&text=secret", { headers: { "drover-goal": ended } }),
  ]);
  expect(await mine.text()).toBe("secret");
  expect(await problemIn(theirs)).toMatchObject({ code: "goal_ended" });
});

test("what is asked once an answer has begun to come is not answered by it", async () => {
  await upstream("begun");
  const first = await proxied("GET", "begun/slow?name=begun&ms=0&text=unread");
  const second = await proxied("GET", "begun/slow?name=begun&ms=0&text=unread");
  expect([await first.text(), await second.text(), await callsOf("begun")]).toEqual(["unread", "unread", 2]);
});

test("HEAD and GET are two calls, and each answer is whole", async () => {
  await upstream("heads-too");
  const answers = await Promise.all(times(6, (i) => proxied(i % 2 === 0 ? "GET" : "HEAD", "heads-too/slow?name=heads-too&text=hello")));
  for (const answer of answers) expect(answer.headers.get("content-length")).toBe("5");
  expect(await Promise.all(answers.map((answer) => answer.text()))).toEqual(["hello", "", "hello", "", "hello", ""]);
  expect(await callsOf("heads-too")).toBe(2);
});

test("one with less patience than the call that it waits for gives up in time, and the others get its answer", async () => {
  await upstream("patience", { maxConcurrency: 1 });
  const busy = proxied("GET", "patience/slow?name=patience&ms=600&busy");
  await until("the permit is taken", async () => (await callsOf("patience")) === 1);
  const path = "patience/slow?name=patience-equal&ms=0&text=late";
  const leader = proxied("GET", path);
  const [hasty, patient] = [proxied("GET", path, { headers: { prefer: "wait=0" } }), proxied("GET", path)];
  expect(await problemIn(await hasty)).toMatchObject({ code: "temporary_reduced_capacity" });
  expect(await callsOf("patience-equal")).toBe(0);
  expect([await (await leader).text(), await (await patient).text()]).toEqual(["late", "late"]);
  expect(await callsOf("patience-equal")).toBe(1);
  await busy;
});

test("those who wait for one another's calls wait no longer in all than each was let", async () => {
  await upstream("patience-all", { maxConcurrency: 1 });
  const busy = proxied("GET", "patience-all/slow?name=patience-all&ms=3000&busy");
  await until("the permit is taken", async () => (await callsOf("patience-all")) === 1);
  const startedAtMs = Date.now();
  const equal = times(4, () => proxied("GET", "patience-all/slow?name=patience-all-equal&ms=0", { headers: { prefer: "wait=1" } }));
  for (const answer of equal) expect(await problemIn(await answer)).toMatchObject({ code: "temporary_reduced_capacity" });
  expect(Date.now() - startedAtMs).toBeLessThan(2_000);
  await (await busy).text();
});

const requestOf = (path: string, init: RequestInit = {}): Request => {
  const headers = { authorization: `Bearer ${env.ROOT_TOKEN}`, ...(init.headers as Record<string, string>) };
  return new Request(`http://drover.test/v1/proxy/${path}`, { ...init, headers });
};

test("a call under way has a door for those who send the same, until its answer begins to come", async () => {
  await upstream("doors");
  const path = "doors/slow?name=doors";
  expect(doorOf(requestOf(path))).toBeNull();
  const first = proxied("GET", path);
  await until("the call is open", async () => (await callsOf("doors")) === 1);
  // These only trace the call, or are the platform's.
  expect(doorOf(requestOf(path, { headers: { "user-agent": "x", traceparent: "y", "cf-ray": "z" } }))).not.toBeNull();
  const others = [
    { authorization: "Bearer other" },
    { "drover-goal": "goal_x" },
    { prefer: "wait=1" },
    { accept: "text/html" },
    { cookie: "a=1" },
  ];
  for (const headers of others) expect(doorOf(requestOf(path, { headers }))).toBeNull();
  expect(doorOf(requestOf(path, { method: "HEAD" }))).toBeNull();
  expect(doorOf(requestOf(path, { method: "POST", body: "x" }))).toBeNull();
  expect(doorOf(requestOf(`${path}&x`))).toBeNull();
  await first;
  expect(doorOf(requestOf(path))).toBeNull();
});

test("a door is shut to whom the token has expired, and to the impatient", async () => {
  const flight = newFlight({ key: "door", resource: null, untilMs: Date.now() + 60_000, authority: "a" });
  const waiting = { authority: "a", refusal: async () => null };
  const claims = fullClaims("default", "somebody", null);
  const doorFor = (expiresAtMs: number | null, waitMs: number): Door => {
    return { flight, caller: callerOf({ ...claims, expiresAtMs }, { kind: "root" }), waiting, waitMs };
  };
  expect(await passDoor(doorFor(Date.now() - 1, 60_000), requestOf("x"), env)).toBeNull();
  expect(await passDoor(doorFor(null, 1_000), requestOf("x"), env)).toBeNull();
  const passing = passDoor(doorFor(null, 60_001), requestOf("x"), env);
  flight.admissions.leaderHas(null);
  landFlight(flight, { kind: "answer", answer: sharedAnswer("GET", ANSWER, null) });
  expect((await passing)?.headers.get("x-a")).toBe("1");
});

interface Ended {
  readonly status: string;
  readonly attempt: number;
  readonly attempts: readonly unknown[];
  readonly result: { readonly body: unknown };
}

async function resultsOf(goal: string): Promise<Ended[]> {
  const text = await (await send("GET", `/v1/goals/${goal}/results?follow=true`)).text();
  return text.trim().split("\n").slice(0, -1).map((line) => JSON.parse(line) as Ended); // prettier-ignore
}

test("tasks of two goals that say so are one call for each of their keys, and every task has its result", async () => {
  await upstream("tasks-equal");
  const tasks = times(400, (i) => ({
    call: { upstream: "tasks-equal", path: `/slow?name=tasks-${i % 20}&ms=300&text=${i % 20}` },
    coalesce: true,
    labels: { n: String(i % 20) },
  }));
  const made = times(2, async () => {
    const answer = await send("POST", "/v1/goals", {
      body: JSON.stringify({ sealed: true, tasks }),
      headers: { "content-type": "application/json" },
    });
    return (await answer.json<{ id: string }>()).id;
  });
  for (const goal of await Promise.all(made)) {
    const results = await resultsOf(goal);
    expect(results).toHaveLength(400);
    const bodies = results.map(({ status, result }) => `${status} ${String(result.body)}`);
    for (const { attempt, attempts } of results) expect(attempts).toHaveLength(attempt);
    for (let i = 0; i < 20; i++) expect(bodies.filter((body) => body === `succeeded ${i}`)).toHaveLength(20);
  }
  for (let i = 0; i < 20; i++) expect(await callsOf(`tasks-${i}`)).toBe(1);
});

test("a task that coalesces and is neither a call nor a run is refused", async () => {
  const answer = await send("POST", "/v1/goals", {
    body: JSON.stringify({ tasks: [{ work: { queue: "q" }, coalesce: true }] }),
    headers: { "content-type": "application/json" },
  });
  expect(await problemIn(answer)).toMatchObject({ status: 400, code: "invalid_request" });
});

const testShard = () => env.FLIGHT.get(env.FLIGHT.idFromName("test-shard"));

let seats = 0;
/** A seat as another isolate has it. */
async function seatOf(key: string) {
  const name = `seat-${++seats}`;
  const seat = await testShard().join(key, name);
  return { seat, name, turn: seat.turn() };
}

/** Which of these seats are lost when they are renewed. */
const lostOf = (...of: readonly { readonly name: string }[]): Promise<string[]> => testShard().renew(of.map(({ name }) => name));

test("over isolates, one leads; the next does when it goes without a word; an answer is for all who wait", async () => {
  const first = await seatOf("k");
  expect(await first.turn).toEqual({ kind: "lead" });
  const second = await seatOf("k");
  const third = await seatOf("k");
  (first.seat as unknown as Disposable)[Symbol.dispose]();
  expect(await second.turn).toEqual({ kind: "lead" });
  expect(await second.seat.landed(0)).toBe(true);
  // Whoever comes now is too late for this answer.
  expect(await (await seatOf("k")).turn).toEqual({ kind: "lead" });
  await second.seat.give(ANSWER);
  expect(await third.turn).toMatchObject({ kind: "answer", answer: { status: 200 }, ageMs: null });
  expect(await lostOf(second, third)).toEqual([second.name, third.name]);
});

test("an answer is as old as its head, however long its body took", async () => {
  const first = await seatOf("res-old.k");
  expect(await first.turn).toEqual({ kind: "lead" });
  await first.seat.landed(400);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await first.seat.give(ANSWER);
  const { ageMs } = (await (await seatOf("res-old.k")).turn) as { ageMs: number };
  expect(ageMs).toBeGreaterThanOrEqual(200);
  await new Promise((resolve) => setTimeout(resolve, 250));
  expect(await (await seatOf("res-old.k")).turn).toEqual({ kind: "lead" });
});

test("a leader that is not heard of for as long as its lease is followed by the next", async () => {
  const first = await seatOf("silent");
  const second = await seatOf("silent");
  expect(await second.turn).toEqual({ kind: "lead" });
  expect(await lostOf(first, second)).toEqual([first.name]);
});

test("over isolates, whoever leads or waits for a call that a write has overtaken hears that it is not to be joined, and its answer is not kept", async () => {
  const [leader, waiting] = [await seatOf("res.k"), await seatOf("res.k")];
  await leader.turn;
  expect(await lostOf(leader, waiting)).toEqual([]);
  await testShard().written("res");
  expect(await lostOf(leader, waiting)).toEqual([leader.name, waiting.name]);
  expect(await (await seatOf("res.k")).turn).toEqual({ kind: "lead" });
  // They were on the way together, so they share it still.
  expect(await leader.seat.landed(60_000)).toBe(true);
  await leader.seat.give(ANSWER);
  expect(await waiting.turn).toMatchObject({ kind: "answer", ageMs: null });
  const next = await seatOf("res.k");
  expect(await Promise.race([next.turn, Promise.resolve("nothing yet")])).toBe("nothing yet");
});
