/**
 * The way to executors: which one a batch goes to follows from its number, so
 * a goal spreads its batches, and two goals begin at different places.
 */
import type { Transport } from "./runner.ts";

const POOL_SIZE = 256;

/** Calls this Worker's own entrypoint, or one of a pool of objects: their connections are counted apart. */
export function transportOf(ctx: DurableObjectState, env: Env): Transport {
  if (env.EXECUTOR_TRANSPORT === "loopback") {
    const { Executor } = (ctx as unknown as { exports: { Executor: ReturnType<Transport> } }).exports;
    return () => Executor;
  }
  const offset = Number.parseInt(ctx.id.toString().slice(-4), 16);
  return (slot) => {
    const name = String((offset + slot) % POOL_SIZE);
    return env.EXECUTOR_POOL.get(env.EXECUTOR_POOL.idFromName(name));
  };
}
