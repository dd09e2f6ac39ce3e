/**
 * `cold`: what it takes to give a task fresh memory. A snapshot restored in
 * place, alone and with a run of its function, beside a fresh dynamic isolate
 * of the platform and a V8 startup snapshot of isolated-vm; then the first run
 * on an isolate that has just started, with the pool filled before and without.
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type Finding, figure } from "../report.ts";
import { installed } from "../rivals/install.ts";
import { type Bundle, bundlesOfAllSizes } from "../sandbox/bundles.ts";
import { bundleSandbox, type SandboxAlone } from "../sandbox/host.ts";
import { medianOf, timedMs } from "../stats.ts";

const ISOLATED_VM = "7.0.1";
const RIVAL = fileURLToPath(new URL("../rivals/isolated-vm.mjs", import.meta.url));
/** Most microseconds of a restore, and how many times faster a run of it must be than that of a rival. */
const RESTORE_US = { decides: 30, parses: 30, dated: 80, checked: 250 };
const KINDS = ["decides", "parses", "dated", "checked"] as const;
/** A run that mostly computes compares two interpreters of JavaScript, and has no such target. */
const COMPUTES = "parses";
const TIMES_FRESH = 30;
const TIMES_ISOLATED_VM = 10;
const POOL = 8;
/** Of a round. */
const SLICES = 10;

interface Timed {
  readonly ms: number;
  readonly last?: unknown;
}

/** Microseconds of one, out of so many. */
async function usOf(alone: SandboxAlone, path: string, version: string, n: number): Promise<{ us: number; last: unknown }> {
  const { ms, last } = (await (await alone.ask(path, { version, n })).json()) as Timed;
  return { us: (ms * 1_000) / n, last };
}

/** Microseconds of a run, the median of so many. */
function isolatedVm(folder: string, { script }: Bundle, n: number): { us: number; last: unknown } {
  const text = execFileSync(process.execPath, ["--no-node-snapshot", RIVAL, folder, String(n)], { input: script, encoding: "utf8" });
  const { times, last } = JSON.parse(text) as { times: number[]; last: unknown };
  return { us: medianOf(times) * 1_000, last };
}

interface Samples {
  readonly restore: number[];
  readonly invoke: number[];
  readonly fresh: number[];
  readonly rival: number[];
  readonly timesFresh: number[];
  readonly timesRival: number[];
}

const noSamples = (): Samples => ({ restore: [], invoke: [], fresh: [], rival: [], timesFresh: [], timesRival: [] });

/** Whoever does not answer to its input did not do the work. */
function checked(name: string, answer: unknown, n: number): void {
  if ((answer as { n?: number } | undefined)?.n !== n)
    throw new Error(`the function of ${name} answers wrongly: ${JSON.stringify(answer)}`);
}

/** Its sides take turns, because a machine that is shared changes its pace every few hundred milliseconds. */
async function measure(
  alone: SandboxAlone,
  isolatesAlone: SandboxAlone,
  bundle: Bundle,
  folder: string | null,
  runs: number,
  into: Samples,
): Promise<void> {
  const { name } = bundle;
  const [each, isolates] = [runs / SLICES, Math.ceil(runs / SLICES / 100)];
  const us = { restore: 0, invoke: 0, fresh: 0 };
  for (let slice = 0; slice < SLICES; slice++) {
    us.restore += (await usOf(alone, "/restore", name, each)).us / SLICES;
    const invoke = await usOf(alone, "/invoke", name, each);
    const fresh = await usOf(isolatesAlone, "/fresh", name, isolates);
    checked(name, invoke.last, each - 1);
    checked(name, fresh.last, isolates - 1);
    us.invoke += invoke.us / SLICES;
    us.fresh += fresh.us / SLICES;
  }
  into.restore.push(us.restore);
  into.invoke.push(us.invoke);
  into.fresh.push(us.fresh / 1_000);
  into.timesFresh.push(us.fresh / us.invoke);
  if (folder === null) return;
  const rivals = Math.ceil(runs / 100);
  const rival = isolatedVm(folder, bundle, rivals);
  checked(name, rival.last, rivals - 1);
  into.rival.push(rival.us / 1_000);
  into.timesRival.push(rival.us / us.invoke);
}

/** Milliseconds from the request to the answer of the first run in a new process, with the pool filled before or not. */
async function firstRun(start: () => Promise<SandboxAlone>, image: Uint8Array<ArrayBuffer>, isWarm: boolean): Promise<number> {
  const alone = await start();
  try {
    // Its code is compiled and its socket open: only the function is cold.
    await alone.ask("/");
    if (!isWarm)
      return await timedMs(() => alone.ask("/load-and-first", { version: "first", n: 1 }, image).then((answer) => answer.text()));
    await alone.ask("/load", { version: "first", n: POOL }, image);
    return await timedMs(() => alone.ask("/first", { version: "first", n: 1 }).then((answer) => answer.text()));
  } finally {
    await alone.end();
  }
}

type Kind = (typeof KINDS)[number];
type Bundles = Awaited<ReturnType<typeof bundlesOfAllSizes>>;

function figuresOf(kind: Kind, { name }: Bundle, of: Samples): Finding[] {
  const [fresh, rival] = kind === COMPUTES ? [] : [{ least: TIMES_FRESH }, { least: TIMES_ISOLATED_VM }];
  const figures = [
    figure("cold", `${name}: a snapshot restored in place`, "us", of.restore, RESTORE_US[kind]),
    figure("cold", "… restored and run", "us", of.invoke),
    figure("cold", "… run in a fresh dynamic isolate", "ms", of.fresh),
    figure("cold", "… that takes so many times as long", "x", of.timesFresh, fresh),
  ];
  if (of.rival.length === 0) return figures;
  return [
    ...figures,
    figure("cold", "… run from a V8 snapshot of isolated-vm", "ms", of.rival),
    figure("cold", "… that takes so many times as long", "x", of.timesRival, rival),
  ];
}

/** So many rounds of everything but the first runs; then an image for these. */
async function measureAll(
  start: () => Promise<SandboxAlone>,
  folder: string | null,
  rounds: number,
  runs: number,
): Promise<{ bundles: Bundles; samples: Record<Kind, Samples>; image: Uint8Array<ArrayBuffer> }> {
  const bundles = await bundlesOfAllSizes();
  const samples = { decides: noSamples(), parses: noSamples(), dated: noSamples(), checked: noSamples() };
  // Isolates that are done with are cleared away later, which the runs of snapshots are not to pay for.
  const [alone, isolatesAlone] = [await start(), await start()];
  for (const kind of KINDS) {
    const { name, module } = bundles[kind];
    for (const each of [alone, isolatesAlone]) await each.ask("/build", { version: name }, module);
  }
  for (let round = -1; round < rounds; round++) {
    // Before the first round neither side's code is compiled well.
    const into = (kind: Kind): Samples => (round < 0 ? noSamples() : samples[kind]);
    for (const kind of KINDS) await measure(alone, isolatesAlone, bundles[kind], folder, runs, into(kind));
  }
  const image = new Uint8Array(await (await alone.ask("/image", { version: bundles.dated.name })).arrayBuffer());
  await alone.end();
  await isolatesAlone.end();
  return { bundles, samples, image };
}

export function coldOf(isFast: boolean): (stage: unknown, rounds: number) => Promise<Finding[]> {
  return async (_stage, rounds) => {
    const rival = installed("isolated-vm", ISOLATED_VM);
    const folder = "folder" in rival ? rival.folder : null;
    const { start, end } = await bundleSandbox();
    try {
      const { bundles, samples, image } = await measureAll(start, folder, rounds, isFast ? 1_000 : 3_000);
      const [cold, warm]: number[][] = [[], []];
      for (let round = 0; round < rounds; round++) {
        cold!.push(await firstRun(start, image, false));
        warm!.push(await firstRun(start, image, true));
      }
      return [
        ...KINDS.flatMap((kind) => figuresOf(kind, bundles[kind], samples[kind])),
        ...("why" in rival ? [{ scenario: "cold", name: "isolated-vm", skipped: rival.why }] : []),
        figure("cold", `${bundles.dated.name}: first run in a new isolate, over HTTP`, "ms", cold!),
        figure("cold", "… with the pool filled before", "ms", warm!),
      ];
    } finally {
      end();
    }
  };
}
