/** What the tests of the engine `isolate` share: versions of their own, and invocations whose host answers from a table. */
import { env } from "cloudflare:workers";
import { PLATFORM_DYNAMIC_WORKERS_PER_OBJECT_MAX } from "../../shared/limits.ts";
import type { Ended, FunctionLimits, FunctionVersion } from "../../shared/protocol/function.ts";
import { Cutoff } from "../../workers/kit/cutoff.ts";
import { Isolates } from "../../workers/sandbox/index.ts";
import type { HostCalls, Invocation } from "../../workers/sandbox/types.ts";

export const LIMITS: FunctionLimits = { cpuMs: 1_000, memoryBytes: 16 * 1024 * 1024 };

let versions = 0;

export function versionOf(name = "f"): FunctionVersion {
  const version = `${name}-${++versions}-${crypto.randomUUID()}`;
  return { name, version, engine: "isolate", limits: LIMITS, bundleBytes: 0, snapshotBytes: 0, initMs: 0, createdAtMs: 0 };
}

export interface Asked {
  readonly op: string;
  readonly args: unknown;
  readonly seq: number;
}

/** Answers every call with what was asked, and remembers it. */
export function echoing(asked: Asked[] = []): HostCalls {
  return async (op, args, seq) => {
    asked.push({ op, args: JSON.parse(args), seq });
    return JSON.stringify({ status: 200, headers: {}, body: { op, ...(JSON.parse(args) as object) } });
  };
}

export function invocationOf(input: unknown, more: Partial<Invocation> = {}): Invocation {
  const about = JSON.stringify({ goal: { id: "goal_1" }, task: { id: "task_1", key: "k", attempt: 2 } });
  return {
    input: JSON.stringify(input),
    about,
    limits: LIMITS,
    calls: echoing(),
    cutoff: new Cutoff(),
    timeoutMs: 60_000,
    ...more,
  };
}

export const isolates = new Isolates(env.LOADER, PLATFORM_DYNAMIC_WORKERS_PER_OBJECT_MAX);

/** Runs a bundle once, in an isolate of its own. */
export function runOnce(bundle: string, input: unknown = null, more: Partial<Invocation> = {}): Promise<Ended> {
  return isolates.invoke(versionOf(), bundle, invocationOf(input, more));
}

export const delay = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
