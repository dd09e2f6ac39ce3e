/**
 * `invocations`: a hundred thousand invocations in one isolate, more at a
 * time than it has instances. The memory of the process must stay
 * flat, and no instance may be lost. Counted from when V8's heap has found its
 * size, which takes it some 150,000; what is alive in it stays at a few MiB.
 */
import { readFileSync } from "node:fs";
import { type Figure, figure } from "../report.ts";
import { bundlesOfAllSizes } from "../sandbox/bundles.ts";
import { bundleSandbox } from "../sandbox/host.ts";

const INVOCATIONS = 100_000;
const WARM_UP = 150_000;
const STEP = 10_000;
const LANES = 32;
const TARGET = 1.1;

const residentMiB = (pid: number): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1_024;

export async function invocations(_stage: unknown, rounds: number): Promise<Figure[]> {
  const { dated: bundle } = await bundlesOfAllSizes();
  const { start, end } = await bundleSandbox();
  const [coldMiB, firstMiB, lastMiB, ratio, instances]: number[][] = [[], [], [], [], []];
  try {
    for (let round = 0; round < rounds; round++) {
      const alone = await start();
      try {
        await alone.ask("/build", { version: bundle.name }, bundle.module);
        const run = async (invocationsLeft: number): Promise<number> => {
          for (let left = invocationsLeft; left > 0; left -= STEP) {
            last = (await (await alone.ask("/many", { version: bundle.name, n: STEP, lanes: LANES })).json()) as typeof last;
            if (last.wrong > 0) throw new Error(`${last.wrong} answers were wrong`);
          }
          return residentMiB(alone.pid);
        };
        let last = { instances: 0, wrong: 0 };
        coldMiB!.push(await run(STEP));
        const before = await run(WARM_UP - STEP);
        const after = await run(INVOCATIONS);
        firstMiB!.push(before);
        lastMiB!.push(after);
        ratio!.push(after / before);
        instances!.push(last.instances);
      } finally {
        await alone.end();
      }
    }
  } finally {
    end();
  }
  return [
    figure("invocations", "resident after 10,000 invocations of a function of 97 KB", "MiB", coldMiB!),
    figure("invocations", "… after 150,000", "MiB", firstMiB!),
    figure("invocations", "… and after 100,000 more", "MiB", lastMiB!),
    figure("invocations", "… grown to", "x", ratio!, TARGET),
    figure("invocations", `instances, ${LANES} invocations at a time`, "", instances!, LANES),
  ];
}
