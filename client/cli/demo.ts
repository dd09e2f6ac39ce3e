/**
 * `npm run demo`: a goal of 5,000 tasks in one request, from an empty folder to
 * checked counts. It starts a server and a sample upstream of its own, and ends
 * both whatever happens. Exit code 1 names the count that is wrong.
 */
import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { call, events, type Caller } from "./demo/api.ts";
import { count, duration, faint, print, row, startBar } from "./demo/progress.ts";
import { wrongCounts, type GoalSummary, type Receipt } from "./demo/verdict.ts";
import { demoBody, DISTINCT, SUBMITTED } from "./demo/workload.ts";
import { SLOW_EVERY, SLOW_MS, USUAL_MS, type UpstreamStats } from "./sample-upstream.ts";
import { startDrover, type Drover } from "./server/child.ts";

const MAX_CONCURRENCY = 256;
const TIMEOUT_MS = 120_000;
const ENDED = new Set(["succeeded", "failed", "canceled", "expired"]);

const dataDir = mkdtempSync(join(tmpdir(), "drover-demo-"));
let upstream: ChildProcess | undefined;
let drover: Promise<Drover> | undefined;
let log = "";

async function cleanUp(): Promise<void> {
  upstream?.kill("SIGKILL");
  // A server that is still starting is waited for; one that failed has ended.
  await drover?.then((server) => server.stop()).catch(() => {});
  rmSync(dataDir, { recursive: true, force: true });
}

async function startUpstream(): Promise<string> {
  upstream = fork(join(import.meta.dirname, "sample-upstream.ts"), { stdio: ["ignore", "pipe", "inherit", "ipc"] });
  const [line] = await once(createInterface({ input: upstream.stdout! }), "line");
  return (JSON.parse(String(line)) as { url: string }).url;
}

async function startAll(): Promise<{ caller: Caller; upstreamUrl: string }> {
  const startedAt = performance.now();
  const keep = (text: string): void => void (log += text);
  drover = startDrover({ dataDir, onStderr: keep });
  const [server, upstreamUrl] = await Promise.all([drover, startUpstream()]);
  row("server", `${server.url}  ${faint(`fresh, ready after ${duration(performance.now() - startedAt)}`)}`);
  row("upstream", `${upstreamUrl}  ${faint(`${USUAL_MS} ms a call, ${SLOW_MS} ms for one in ${SLOW_EVERY}`)}`);
  return { caller: server, upstreamUrl };
}

interface Submitted {
  readonly goalId: string;
  readonly receipt: Receipt;
  readonly sentAt: number;
  readonly ackMs: number;
}

async function submit(caller: Caller, upstreamUrl: string): Promise<Submitted> {
  const settings = { origin: upstreamUrl, maxConcurrency: MAX_CONCURRENCY };
  await call(caller, "PUT", "/v1/upstreams/sample", JSON.stringify(settings));
  const goal = await call<{ id: string }>(caller, "POST", "/v1/goals", JSON.stringify({ name: "demo: read 4,500 pages" }));
  row("goal", goal.id);
  const body = demoBody();
  const sentAt = performance.now();
  const receipt = await call<Receipt>(caller, "POST", `/v1/goals/${goal.id}/tasks`, body);
  const ackMs = performance.now() - sentAt;
  await call(caller, "POST", `/v1/goals/${goal.id}/seal`);
  row("sent", `${count(SUBMITTED)} tasks in one request of ${count(Math.round(body.length / 1_000))} kB, durable after ${duration(ackMs)}`);
  return { goalId: goal.id, receipt, sentAt, ackMs };
}

async function follow(caller: Caller, goalId: string): Promise<void> {
  const bar = startBar(DISTINCT);
  try {
    for await (const { data } of events(caller, goalId)) {
      const counts = data["counts"] as Record<string, number> | undefined;
      if (counts) bar.update(["succeeded", "failed", "canceled", "expired"].reduce((sum, status) => sum + (counts[status] ?? 0), 0));
      if (ENDED.has(String(data["status"]))) return;
    }
  } finally {
    bar.end();
  }
}

function summarise({ ackMs }: Submitted, doneMs: number, goal: GoalSummary, stats: UpstreamStats): void {
  const retries = goal.budget.spent.calls - goal.counts.total;
  print();
  row("ack", duration(ackMs));
  row("done", duration(doneMs));
  row("latency", `p50 ${goal.latency.p50Ms} ms, p99 ${goal.latency.p99Ms} ms`);
  row("calls", `${count(stats.calls)} at the upstream, ${count(retries)} of them retries`);
  row("joined", `${count(goal.joined)} tasks that were already there`);
  row("rows", `${count(goal.storage.rowsWritten)} written for ${count(goal.counts.total)} tasks`);
  print();
}

/** Runs the demo and answers with the exit code. */
async function demo(): Promise<number> {
  print();
  print(`Drover demo  ${faint("one goal, 5,000 tasks, one request")}`);
  print();
  const { caller, upstreamUrl } = await startAll();
  const submitted = await submit(caller, upstreamUrl);
  print();
  await follow(caller, submitted.goalId);
  const doneMs = performance.now() - submitted.sentAt;
  const goal = await call<GoalSummary>(caller, "GET", `/v1/goals/${submitted.goalId}`);
  const stats = (await (await fetch(`${upstreamUrl}/stats`)).json()) as UpstreamStats;
  summarise(submitted, doneMs, goal, stats);
  const wrong = wrongCounts(submitted.receipt, goal, stats);
  if (wrong.length === 0) print(`Every count agrees with the upstream's own. Next: npm start`);
  else print(["These counts are wrong:", ...wrong].join("\n  "));
  print();
  return wrong.length === 0 ? 0 : 1;
}

let ending = false;
async function end(code: number): Promise<void> {
  if (ending) return;
  ending = true;
  await cleanUp();
  process.exit(code);
}

function fail(error: unknown): Promise<void> {
  if (ending) return Promise.resolve();
  process.stderr.write(`\n  The demo failed: ${error instanceof Error ? error.message : String(error)}\n${log}\n`);
  return end(1);
}

process.on("SIGINT", () => void end(130));
process.on("SIGTERM", () => void end(143));
setTimeout(() => void fail(new Error(`not done after ${TIMEOUT_MS / 1_000} s`)), TIMEOUT_MS).unref();
await demo().then(end, fail);
