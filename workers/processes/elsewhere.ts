/** Has a function that is invoked outside any goal run in an executor's process: one that loops for ever stops that, and not the server. */
import type { LoneEnd, LoneRun } from "../../shared/rpc-functions.ts";
import type { LoneRpc } from "../../shared/rpc-processes.ts";
import { within } from "../kit/within.ts";
import { type Asker, type RunLone, runLoneHere } from "../sandbox/lone.ts";
import { seatFor } from "./bound.ts";
import { Home } from "./home.ts";
import type { Seat } from "./processes.ts";

/** A version may have to be built anew. */
const LOAD_MS = 30_000;
/** A process ends a run in time, unless it is busy or hangs. */
const GRACE_MS = 1_000;

/** What it logged and used is gone with its process. */
function lost(code: "function_limit" | "temporary_reduced_capacity", detail: string): LoneEnd {
  return { ended: { outcome: "failed", code, detail, cpuMs: 0 }, isLate: code === "function_limit", logs: [] };
}

const busy = (): LoneEnd => lost("temporary_reduced_capacity", "the processes in which functions run are busy; invoke it again");

export const runLoneElsewhere: RunLone = async (run, asker) => {
  const seat = await seatFor([], asker.waitUntil);
  return seat === null ? runLoneHere(run, asker) : runIn(seat, run, asker);
};

async function runIn(seat: Seat, run: LoneRun, { env, waitUntil, left }: Asker): Promise<LoneEnd> {
  const home = new Home(env, "");
  waitUntil(home.left.then(() => seat.leave()));
  const beginning = seat.process.lone(run, home);
  const cut = (): void => void beginning.then((lone) => lone.cut()).catch(() => undefined);
  left.addEventListener("abort", cut, { once: true });
  if (left.aborted) cut();
  try {
    return await endOf(beginning, run.timeoutMs);
  } catch {
    seat.lost();
    home[Symbol.dispose]();
    return lost("temporary_reduced_capacity", "the process in which the function ran has ended; invoke it again");
  } finally {
    left.removeEventListener("abort", cut);
    // One that comes late runs for nobody.
    beginning.then((lone) => (lone as Partial<Disposable>)[Symbol.dispose]?.()).catch(() => undefined);
  }
}

async function endOf(beginning: Promise<LoneRpc>, timeoutMs: number): Promise<LoneEnd> {
  const loading = beginning.then((lone) => lone.ready()).then((fault) => ({ fault }));
  const loaded = await within(loading, LOAD_MS);
  if (loaded === null) return busy();
  if (loaded.fault !== null) return lost("temporary_reduced_capacity", loaded.fault);
  const ending = beginning.then((lone) => lone.run());
  return (await within(ending, timeoutMs + GRACE_MS)) ?? lost("function_limit", "it did not end");
}
