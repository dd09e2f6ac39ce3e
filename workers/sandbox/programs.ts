/** Versions of functions as something to invoke, whichever engine they are for. One sandbox an isolate. */
import { PLATFORM_DYNAMIC_WORKERS_PER_OBJECT_MAX, PLATFORM_DYNAMIC_WORKERS_PER_REQUEST_MAX, WARM_INSTANCES } from "../../shared/limits.ts";
import type { Ended, FunctionVersion } from "../../shared/protocol/function.ts";
import { Images } from "./images.ts";
import { Isolates } from "./isolate/isolates.ts";
import { Sandbox } from "./snapshot/pool.ts";
import type { Invocation } from "./types.ts";

/** A version that is ready to be invoked. */
export type Program = (invocation: Invocation) => Promise<Ended>;

type ProgramEnv = Pick<Env, "IMAGE" | "LOADER">;

/** Where this runs: how many dynamic Workers the platform takes depends on it. */
export type Place = "request" | "object";

const sandbox = new Sandbox();
const images = new Images(sandbox);
const isolates = new Map<Place, Isolates>();

function isolatesFor({ LOADER }: ProgramEnv, place: Place): Isolates {
  let known = isolates.get(place);
  if (known === undefined) {
    known = new Isolates(LOADER, place === "request" ? PLATFORM_DYNAMIC_WORKERS_PER_REQUEST_MAX : PLATFORM_DYNAMIC_WORKERS_PER_OBJECT_MAX);
    isolates.set(place, known);
  }
  return known;
}

/** Loads the version. Rejects where it cannot be had. */
export async function programOf(env: ProgramEnv, place: Place, version: FunctionVersion): Promise<Program> {
  if (version.engine === "isolate") {
    const bundle = await images.bundle(env, version);
    return (invocation) => isolatesFor(env, place).invoke(version, bundle, invocation, invocation.begun);
  }
  await images.load(env, version);
  return async (invocation) => {
    // It may have made room for others meanwhile.
    await images.load(env, version);
    return sandbox.invoke(version.version, invocation);
  };
}

/** Loads the version and makes instances of it, so that its first invocations find them. */
export async function warm(env: ProgramEnv, place: Place, version: FunctionVersion): Promise<void> {
  await programOf(env, place, version);
  await sandbox.warm(version.version, WARM_INSTANCES);
}
