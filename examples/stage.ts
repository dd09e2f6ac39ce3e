/** What the examples run on: a local server of their own and the site, as upstream `site`. Both end whatever happens. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { call, events, type Caller } from "../client/cli/demo/api.ts";
import { count, print, row } from "../client/cli/demo/progress.ts";
import { bundleFunction } from "../client/cli/functions/bundle.ts";
import { send } from "../client/cli/functions/server.ts";
import { startDrover, type Drover } from "../client/cli/server/child.ts";
import type { FunctionVersion } from "../shared/protocol/function.ts";
import type { GoalView } from "../shared/protocol/goal.ts";
import { startSite, type Site } from "./site.ts";

const TIMEOUT_MS = 300_000;

export interface Stage {
  readonly drover: Caller;
  readonly site: Site;
}

/** Bundles the file and puts the function. */
export async function deploy(drover: Caller, name: string, file: string): Promise<void> {
  const bundle = await bundleFunction(file);
  const { value } = await send(drover, "PUT", `/v1/functions/${name}`, "text/javascript", bundle);
  const { bundleBytes, snapshotBytes, initMs } = value as FunctionVersion;
  row("function", `${name}, ${count(bundleBytes)} bytes, snapshot ${count(snapshotBytes)} bytes, initialised in ${initMs} ms`);
}

/** Makes the goal and follows it to its end. */
export async function runGoal(drover: Caller, goal: object): Promise<GoalView> {
  const { id } = await call<{ id: string }>(drover, "POST", "/v1/goals", JSON.stringify(goal));
  row("goal", id);
  let shownAtMs = 0;
  for await (const { type, data } of events(drover, id)) {
    const counts = data["counts"] as GoalView["counts"] | undefined;
    if (type === "budget") row("budget", JSON.stringify(data));
    if (counts === undefined || Date.now() - shownAtMs < 1_000) continue;
    shownAtMs = Date.now();
    row("tasks", `${count(counts.succeeded)} of ${count(counts.total)} so far`);
  }
  return settled(drover, id);
}

/** The goal when nothing of its budget is set aside any more: what functions had laid in is given back a moment after its end. */
async function settled(drover: Caller, id: string): Promise<GoalView> {
  for (;;) {
    const goal = await call<GoalView>(drover, "GET", `/v1/goals/${id}`);
    if ((goal.budget.reserved.calls ?? 0) === 0) return goal;
    await sleep(50);
  }
}

/** Runs an example, which answers with what is wrong, and ends the process: 0, or 1 where something is. */
export async function runExample(title: string, example: (stage: Stage) => Promise<readonly string[]>): Promise<never> {
  const dataDir = mkdtempSync(join(tmpdir(), "drover-example-"));
  let log = "";
  let site: Site | undefined;
  let drover: Promise<Drover> | undefined;
  const end = async (code: number): Promise<never> => {
    site?.close();
    await drover?.then((server) => server.stop()).catch(() => {});
    rmSync(dataDir, { recursive: true, force: true });
    process.exit(code);
  };
  process.once("SIGINT", () => void end(130));
  process.once("SIGTERM", () => void end(143));
  setTimeout(() => void end(1), TIMEOUT_MS).unref();
  try {
    print();
    print(title);
    print();
    site = await startSite();
    drover = startDrover({ dataDir, onStderr: (text) => void (log += text) });
    const server = await drover;
    await call(server, "PUT", "/v1/upstreams/site", JSON.stringify({ origin: site.origin, maxConcurrency: 64 }));
    const faults = await example({ drover: server, site });
    print();
    print(faults.length === 0 ? "All as it should be." : ["This is wrong:", ...faults].join("\n  "));
    print();
    return await end(faults.length === 0 ? 0 : 1);
  } catch (error) {
    process.stderr.write(`\n  The example failed: ${error instanceof Error ? error.message : String(error)}\n${log}\n`);
    return end(1);
  }
}
