/** The demo judges itself; here it is made sure that it can also find fault, and that it leaves nothing behind. */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { wrongCounts, type GoalSummary } from "../../client/cli/demo/verdict.ts";
import { demoBody } from "../../client/cli/demo/workload.ts";

const DEMO = join(import.meta.dirname, "../../client/cli/demo.ts");
const RECEIPT = { accepted: 4_500, joined: 500, rejected: 0 };
const UPSTREAM = { calls: 4_503, keys: 4_500, paths: 4_500 };
const GOAL: GoalSummary = {
  status: "succeeded",
  counts: { queued: 0, waiting: 0, running: 0, succeeded: 4_500, failed: 0, canceled: 0, expired: 0, total: 4_500 },
  joined: 500,
  budget: { spent: { calls: 4_503 } },
  latency: { p50Ms: 20, p99Ms: 300 },
  storage: { rowsWritten: 200 },
};

test("the demo ends with exit code 0, every count right and nothing left behind", async () => {
  const temporary = mkdtempSync(join(tmpdir(), "drover-test-"));
  const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
    const env = { ...process.env, TMPDIR: temporary };
    execFile(process.execPath, [DEMO], { env }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, output: stdout + stderr }));
  });
  expect(output).toContain("Every count agrees");
  expect(code).toBe(0);
  expect(readdirSync(temporary).filter((name) => name.startsWith("drover-"))).toEqual([]);
  rmSync(temporary, { recursive: true });
});

test("counts that agree are accepted, and each that does not is named", () => {
  expect(wrongCounts(RECEIPT, GOAL, UPSTREAM)).toEqual([]);
  expect(wrongCounts({ ...RECEIPT, joined: 499 }, GOAL, UPSTREAM)).toEqual(["tasks joined, by the receipt: 499, not 500"]);
  expect(wrongCounts(RECEIPT, { ...GOAL, status: "failed", joined: 7 }, UPSTREAM)).toHaveLength(2);
  expect(wrongCounts(RECEIPT, GOAL, { ...UPSTREAM, calls: 4_504 })).toEqual([
    "calls at the upstream, against those Drover counted: 4504, not 4503",
  ]);
  expect(wrongCounts(RECEIPT, GOAL, { ...UPSTREAM, paths: 4_499 })[0]).toMatch(/^different tasks at the upstream/);
});

test("the demo submits 5,000 tasks: 500 repeat others, 1,000 have one of ten parents in the same request", () => {
  interface Task {
    readonly key: string;
    readonly parentTaskId?: string;
  }
  const { tasks } = JSON.parse(demoBody()) as { tasks: Task[] };
  const distinct = new Map(tasks.map((task) => [task.key, task]));
  const children = [...distinct.values()].filter((task) => task.parentTaskId !== undefined);
  expect([tasks.length, distinct.size, children.length]).toEqual([5_000, 4_500, 1_000]);
  const parents = new Set(children.map((task) => task.parentTaskId!));
  expect([...parents].filter((key) => distinct.has(key))).toHaveLength(10);
});
