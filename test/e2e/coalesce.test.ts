/** Five thousand equal calls at once through a started server: one call at the upstream, whatever it says of storing, however long it takes, and whoever leaves. */
import { connect, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import type { GoalView } from "../../shared/protocol/goal.ts";
import { call, until } from "./api.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const HERD = 5_000;
const SECONDS_MAX = 55;

/** `/delay/{ms}`; with `no-store` in the query the answer says so. */
const stage = useStage((incoming, response) => {
  const path = incoming.url ?? "/";
  if (path.includes("no-store")) response.setHeader("cache-control", "no-store");
  answerAfter(Number(/^\/delay\/(\d+)/.exec(path)?.[1] ?? 0))(incoming, response, 0);
});

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** A GET on a connection of its own: the status, or 0 where there was none, and the rest. */
function get(path: string, goal?: string): { readonly socket: Socket; readonly answer: Promise<string> } {
  const { port, hostname } = new URL(stage.drover.url);
  const headers = [`Host: drover`, "Connection: close", `Authorization: Bearer ${stage.drover.token}`];
  if (goal !== undefined) headers.push(`Drover-Goal: ${goal}`);
  const socket = connect(Number(port), hostname, () =>
    socket.write(`GET /v1/proxy/real${path} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n`),
  );
  sockets.push(socket);
  let heard = "";
  const answer = new Promise<string>((resolve) => {
    socket.on("data", (bytes) => (heard += bytes.toString()));
    socket.once("error", () => resolve(""));
    socket.once("close", () => resolve(heard));
  });
  return { socket, answer };
}

const seenAt = (path: string): number => stage.upstream.seen.filter((one) => one.path === path).length;
const isWhole = (path: string) => (text: string) => text.startsWith("HTTP/1.1 200") && text.endsWith(`{"path":"${path}"}`);

async function herd(path: string, goals: readonly (string | undefined)[]): Promise<void> {
  const startedAtMs = Date.now();
  const answers = await Promise.all(Array.from({ length: HERD }, (_, i) => get(path, goals[i % goals.length]).answer));
  console.info(`${HERD} equal calls of ${path} in ${Date.now() - startedAtMs} ms`);
  expect(answers.filter((text) => !isWhole(path)(text))).toEqual([]);
  expect(answers.filter((text) => text.includes("cache-status: drover; collapsed"))).toHaveLength(HERD - 1);
  expect(seenAt(path)).toBe(1);
}

const newGoal = async (): Promise<string> => (await call<GoalView>(stage.drover, "POST", "/v1/goals", {})).id;

test(
  "five thousand at once are one call, also where nothing may be stored, and for two goals together",
  async () => {
    // Long enough for all to arrive, on a busy machine too.
    await herd("/delay/8000?plain", [undefined]);
    await herd("/delay/8000?no-store", [await newGoal(), await newGoal()]);
  },
  SECONDS_MAX * 1_000,
);

test("whoever leads may leave: the call goes on for the others, and is not made again", async () => {
  const first = get("/delay/1500?leader");
  await until("the call is open", () => seenAt("/delay/1500?leader") === 1);
  const others = Array.from({ length: 50 }, () => get("/delay/1500?leader").answer);
  await new Promise((resolve) => setTimeout(resolve, 500));
  first.socket.resetAndDestroy();
  expect((await Promise.all(others)).filter((text) => !isWhole("/delay/1500?leader")(text))).toEqual([]);
  expect(seenAt("/delay/1500?leader")).toBe(1);
});

test("one who left before anybody else came costs the next one a call, and no failure", async () => {
  const first = get("/delay/1000?lone");
  await until("the call is open", () => seenAt("/delay/1000?lone") === 1);
  first.socket.resetAndDestroy();
  await new Promise((resolve) => setTimeout(resolve, 200));
  const others = await Promise.all(Array.from({ length: 20 }, () => get("/delay/1000?lone").answer));
  expect(others.filter((text) => !isWhole("/delay/1000?lone")(text))).toEqual([]);
  expect(seenAt("/delay/1000?lone")).toBe(2);
});
