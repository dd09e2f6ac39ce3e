/** Runs of functions outside any goal: there is nothing to charge, to ask or to lock in. */
import type { LoneEnd, LoneRun, RunLog } from "../../shared/rpc-functions.ts";
import { Cutoff } from "../kit/cutoff.ts";
import { type Program, programOf } from "./programs.ts";
import { type HostCalls, HostError } from "./types.ts";

const ABOUT = JSON.stringify({ goal: { id: "none" }, task: { id: "invoke", attempt: 1 } });
const NOTHING = "null";

function hostOf(logs: RunLog[]): HostCalls {
  return async (op, args) => {
    if (op !== "log") {
      throw new HostError(
        "invalid_request",
        `ctx.${op} works in a task of a goal only, and this is an invocation by itself; submit a task with "run"`,
      );
    }
    const { level, text } = JSON.parse(args) as { level: unknown; text: unknown };
    logs.push({ level, text: String(text) });
    return NOTHING;
  };
}

/** Loads its version. Rejects where that cannot be had. */
export function programFor(env: Pick<Env, "IMAGE" | "LOADER">, run: LoneRun): Promise<Program> {
  return programOf(env, "request", run.function);
}

/** Runs it until its time is over, or `cutoff` ends it. */
export async function runAlone(program: Program, { function: { limits }, input, timeoutMs }: LoneRun, cutoff: Cutoff): Promise<LoneEnd> {
  const logs: RunLog[] = [];
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    cutoff.end("timed out");
  }, timeoutMs);
  try {
    const ended = await program({ input, about: ABOUT, limits, calls: hostOf(logs), cutoff, timeoutMs });
    return { ended, isLate, logs };
  } finally {
    clearTimeout(timer);
  }
}

/** What the one who asks for a run has at hand. */
export interface Asker {
  readonly env: Env;
  readonly waitUntil: (work: Promise<unknown>) => void;
  /** Nobody waits for the run any more. */
  readonly left: AbortSignal;
}

/** Has a function run, wherever that is. */
export type RunLone = (run: LoneRun, asker: Asker) => Promise<LoneEnd>;

export const runLoneHere: RunLone = async (run, { env, left }) => {
  const cutoff = new Cutoff();
  const leave = (): void => cutoff.end("its caller has gone");
  left.addEventListener("abort", leave, { once: true });
  if (left.aborted) leave();
  try {
    return await runAlone(await programFor(env, run), run, cutoff);
  } finally {
    left.removeEventListener("abort", leave);
  }
};
