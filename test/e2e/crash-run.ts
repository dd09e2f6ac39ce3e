/**
 * Kills a server in the middle of goals and checks, from the outside alone,
 * what a caller and an upstream may rely on. A fresh goal for every kill, the
 * same folder and port throughout. By hand:
 *
 *   node test/e2e/crash-run.ts --kills 20 --parents 5 --tasks 5000 --seed 1
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type Drover, startDrover } from "../../client/cli/server/child.ts";
import { chance } from "../../shared/policy/backoff.ts";
import { call, goalOf, type Page, type Receipts, resultsOf, tasksOf, type TaskView, until } from "./api.ts";
import { answerAfter, startUpstream, type Upstream } from "./upstream.ts";
import { report } from "./rounds.ts";

export interface CrashOptions {
  /** Kills of the whole server, and of the Node parent alone. */
  readonly kills: number;
  readonly parents: number;
  readonly tasks: number;
  readonly seed: number;
}

/** What one kill did, as seen from outside. */
export interface Figures {
  readonly what: Target;
  readonly moment: string;
  /** Requests that the upstream had got when the server was killed. */
  readonly seenBefore: number;
  readonly startMs: number;
  /** From ready to the next call at the upstream; null where there was none left to make. */
  readonly resumedMs: number | null;
  /** From ready until everything but doubts was done. */
  readonly doneMs: number;
  readonly repeated: number;
  readonly unknown: number;
  /** Sentences about what should not be. */
  readonly faults: readonly string[];
}

const CONCURRENCY = 64;
const ONCE_CONCURRENCY = 16;
const UPSTREAM_MS = 20;
const ONCE_TIMEOUT_MS = 1_000;
const ONCE_SHARE = 10;
const RESUME_MS_MAX = 2_000;

type Target = "all" | "parent";

interface Stage {
  readonly dataDir: string;
  readonly upstream: Upstream;
  drover: Drover;
}

/** One in ten is a POST that must never be sent twice. */
const isOnce = (n: number): boolean => n % ONCE_SHARE === 3;

function bodyOf(tasks: number, name: string): unknown {
  const specs = Array.from({ length: tasks }, (_, n) => {
    const path = `/${name}/${n}`;
    if (isOnce(n)) return { key: `k${n}`, call: { upstream: "once", method: "POST", path, body: { n } } };
    return { key: `k${n}`, labels: { upstream: "many" }, call: { upstream: "many", path } };
  });
  return { tasks: specs };
}

/** Submits and kills: during the request, right after its answer, or at a random moment of the goal. Answers with when that was. */
async function submitAndKill(stage: Stage, goalId: string, options: CrashOptions, round: number, what: Target): Promise<string> {
  const { drover, upstream } = stage;
  const size = chance(options.seed, round, 1);
  const submission = submit(drover, goalId, options);
  if (round % 5 === 0) {
    // The caller does not know, and will ask again.
    submission.catch(() => undefined);
    const afterMs = Math.round(size * 200);
    await sleep(afterMs);
    await drover.kill(what);
    return `${afterMs} ms into the request`;
  }
  await submission;
  const calls = round % 5 === 1 ? 0 : Math.floor(size * options.tasks * 0.95);
  await upstream.reached(upstream.seen.length + calls);
  await drover.kill(what);
  return calls === 0 ? "after the answer" : `after ${calls} calls`;
}

function submit(drover: Drover, goalId: string, { tasks }: CrashOptions): Promise<Receipts> {
  return call<Receipts>(drover, "POST", `/v1/goals/${goalId}/tasks`, bodyOf(tasks, goalId), { "idempotency-key": goalId });
}

async function restart(stage: Stage): Promise<number> {
  const startedAt = performance.now();
  const port = Number(new URL(stage.drover.url).port);
  stage.drover = await startDrover({ dataDir: stage.dataDir, port, onStderr: () => undefined });
  return Math.round(performance.now() - startedAt);
}

/** Waits for the upstream's next call, while nobody asks the server anything. */
async function resumption({ upstream }: Stage, isExpected: boolean): Promise<number | null> {
  if (!isExpected) return null;
  const readyAt = performance.now();
  const before = upstream.seen.length;
  await Promise.race([upstream.reached(before + 1), sleep(2 * RESUME_MS_MAX)]);
  return Math.round(performance.now() - readyAt);
}

/** Waits until only doubts are left, decides those by what the upstream knows, and lets the goal end. */
async function finish({ drover, upstream }: Stage, goalId: string): Promise<number> {
  const hasRun = async (): Promise<boolean> => {
    const { queued, running } = (await goalOf(drover, goalId)).counts;
    return queued + running === 0 && (await tasksOf(drover, goalId, "&status=waiting")).every(({ reason }) => reason === "outcome_unknown");
  };
  await until(`the tasks of ${goalId} have run`, hasRun, 120_000);
  const waiting = await tasksOf(drover, goalId, "&status=waiting");
  const keys = new Set(upstream.seen.map(({ key }) => key));
  for (const { id } of waiting) await call(drover, "POST", `/v1/tasks/${id}/resolve`, { as: keys.has(id) ? "succeeded" : "retry" });
  await call(drover, "POST", `/v1/goals/${goalId}/seal`);
  return waiting.length;
}

interface Requests {
  repeated: number;
  readonly faults: string[];
}

/** What the upstream saw of a goal's tasks, against what the goal says of them. */
function checkRequests(upstream: Upstream, goalId: string, tasks: readonly TaskView[]): Requests {
  const requests: Requests = { repeated: 0, faults: [] };
  const byPath = Map.groupBy(
    upstream.seen.filter(({ path }) => path.startsWith(`/${goalId}/`)),
    ({ path }) => path,
  );
  for (const { id, key, status, attempt } of tasks) {
    const n = Number(key!.slice(1));
    const seen = byPath.get(`/${goalId}/${n}`) ?? [];
    if (seen.some((request) => request.key !== id)) requests.faults.push(`${id} was called under another key`);
    if (seen.length === 0) requests.faults.push(`${id} ended as ${status} and was never called`);
    if (isOnce(n) && seen.length > 1) requests.faults.push(`${id} must not be repeated and was called ${seen.length} times`);
    if (new Set(seen.map((request) => request.attempt)).size < seen.length) requests.faults.push(`${id}: one attempt was called twice`);
    if (attempt < seen.length) requests.faults.push(`${id} has ${attempt} attempts and was called ${seen.length} times`);
    if (!isOnce(n)) requests.repeated += Math.max(0, seen.length - 1);
  }
  if (requests.repeated > CONCURRENCY) requests.faults.push(`${requests.repeated} calls were repeated, more than ${CONCURRENCY}`);
  return requests;
}

/** Every task of the submission once, each with the one end that it must have. */
async function checkResults({ drover }: Stage, goalId: string, size: number): Promise<{ tasks: TaskView[]; faults: string[] }> {
  const faults: string[] = [];
  const { tasks, end } = await resultsOf(drover, goalId);
  const keys = new Set(tasks.map(({ key }) => key));
  if (tasks.length !== size) faults.push(`${size} tasks were acknowledged, and ${tasks.length} have ended`);
  if (keys.size !== tasks.length) faults.push(`${tasks.length - keys.size} tasks have ended more than once`);
  const listed = new Map((await tasksOf(drover, goalId)).map((task) => [task.id, task.status]));
  for (const { id, status } of tasks) {
    if (status !== "succeeded") faults.push(`${id} ended as ${status}`);
    if (listed.get(id) !== status) faults.push(`${id} ended as ${status} and is listed as ${listed.get(id)}`);
  }
  if (listed.size !== size) faults.push(`${listed.size} tasks are listed`);
  if (end.status !== "succeeded") faults.push(`the goal ended as ${end.status}`);
  return { tasks, faults };
}

/** The next kill must find nothing of this goal that it could repeat. */
async function isRepeatableDone(drover: Drover, goalId: string): Promise<boolean> {
  for (const status of ["queued", "running", "waiting"]) {
    const path = `/v1/goals/${goalId}/tasks?limit=1&status=${status}&label=upstream%3Dmany`;
    if ((await call<Page<TaskView>>(drover, "GET", path)).items.length > 0) return false;
  }
  return true;
}

/** A goal that a kill went through. */
type Survivor = Omit<Figures, "unknown" | "repeated"> & { readonly goalId: string };

async function killOnce(stage: Stage, options: CrashOptions, round: number, what: Target): Promise<Survivor> {
  const { upstream } = stage;
  const { id } = await call<{ id: string }>(stage.drover, "POST", "/v1/goals", { name: `crash ${round}` });
  const before = upstream.seen.length;
  const moment = await submitAndKill(stage, id, options, round, what);
  // Without its parent workerd goes on for a while, until the next start ends it.
  if (what === "parent") await sleep(chance(options.seed, round, 2) * 300);
  const seenBefore = upstream.seen.length - before;
  const startMs = await restart(stage);
  const readyAt = performance.now();
  const repeatable = options.tasks - Math.ceil(options.tasks / ONCE_SHARE);
  const called = new Set(
    upstream.seen.filter(({ method, path }) => method === "GET" && path.startsWith(`/${id}/`)).map(({ path }) => path),
  );
  const resumedMs = await resumption(stage, !moment.endsWith("request") && called.size < repeatable);
  const again = await submit(stage.drover, id, options);
  await until(`the repeatable tasks of ${id} are done`, () => isRepeatableDone(stage.drover, id), 120_000);
  const doneMs = Math.round(performance.now() - readyAt);
  const faults: string[] = [];
  if (again.accepted !== options.tasks) faults.push(`asked again, the answer says that ${again.accepted} tasks were accepted`);
  if (resumedMs !== null && resumedMs > RESUME_MS_MAX) faults.push(`nothing was called for ${resumedMs} ms after the restart`);
  return { goalId: id, what, moment, seenBefore, startMs, resumedMs, doneMs, faults };
}

/** `later` is how many kills came after the goal's own. */
async function examine(stage: Stage, { tasks: size }: CrashOptions, survivor: Survivor, later: number): Promise<Figures> {
  const { goalId, ...figures } = survivor;
  const unknown = await finish(stage, goalId);
  const { tasks, faults } = await checkResults(stage, goalId, size);
  const requests = checkRequests(stage.upstream, goalId, tasks);
  faults.push(...survivor.faults, ...requests.faults);
  // What waits for a lease to end may be hit again by the next kills.
  if (unknown > ONCE_CONCURRENCY * (1 + later)) faults.push(`${unknown} outcomes are unknown, more than were open`);
  return { ...figures, repeated: requests.repeated, unknown, faults };
}

/** Runs all kills, telling of each at the end; throws only where the run itself breaks. */
export async function crashRun(options: CrashOptions, tell: (figures: Figures, round: number) => void): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), "drover-crash-"));
  const upstream = await startUpstream(answerAfter(UPSTREAM_MS));
  const stage: Stage = { dataDir, upstream, drover: await startDrover({ dataDir, onStderr: () => undefined }) };
  try {
    const { origin } = upstream;
    await call(stage.drover, "PUT", "/v1/upstreams/many", { origin, maxConcurrency: CONCURRENCY });
    await call(stage.drover, "PUT", "/v1/upstreams/once", { origin, maxConcurrency: ONCE_CONCURRENCY, timeoutMs: ONCE_TIMEOUT_MS });
    const survivors: Survivor[] = [];
    const rounds = options.kills + options.parents;
    for (let round = 0; round < rounds; round++)
      survivors.push(await killOnce(stage, options, round, round < options.kills ? "all" : "parent"));
    for (const [round, survivor] of survivors.entries()) tell(await examine(stage, options, survivor, rounds - 1 - round), round);
  } finally {
    await stage.drover.stop();
    await upstream.close();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const option = (value: string) => ({ type: "string", default: value }) as const;
  const { values } = parseArgs({ options: { kills: option("20"), parents: option("5"), tasks: option("5000"), seed: option("1") } });
  const options = { kills: Number(values.kills), parents: Number(values.parents), tasks: Number(values.tasks), seed: Number(values.seed) };
  await report(options, crashRun);
}

if (import.meta.main) await main();
