/** One contract of handlers, in both engines. */
import { describe, expect, test } from "vitest";
import { buildImage, Sandbox } from "../../workers/sandbox/index.ts";
import type { Ended, HostCalls } from "../../workers/sandbox/types.ts";
import { HANDLER_CASES, hostOf } from "./handlers.ts";
import { invocationOf, LIMITS, runOnce } from "./isolate-kit.ts";

type Engine = (bundle: string, input: unknown, calls: HostCalls) => Promise<Ended>;

async function inSnapshot(bundle: string, input: unknown, calls: HostCalls): Promise<Ended> {
  const built = await buildImage(bundle, LIMITS);
  if (!built.ok) throw new Error(built.error.detail);
  const sandbox = new Sandbox();
  await sandbox.load("v", built.value);
  return sandbox.invoke("v", invocationOf(input, { calls }));
}

const ENGINES: readonly (readonly [string, Engine])[] = [
  ["isolate", (bundle, input, calls) => runOnce(bundle, input, { calls })],
  ["snapshot", inSnapshot],
];

describe.for(ENGINES)("a handler in the engine %s", ([, run]) => {
  test.for(HANDLER_CASES)("$title", async ({ bundle, input = null, output, failure, asked }) => {
    const log: (readonly [string, unknown, number])[] = [];
    const ended = await run(bundle, input, hostOf(log));
    if (failure === undefined) expect(ended).toMatchObject({ outcome: "returned", output: JSON.stringify(output) });
    else expect(ended).toMatchObject({ outcome: "failed", ...failure });
    if (asked !== undefined) expect(log).toEqual(asked);
  });
});
