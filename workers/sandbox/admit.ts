/** Whether a bundle can be a function: it is initialised once, in the engine that it is for. */
import { type Failure, failure } from "../../shared/errors.ts";
import { PLATFORM_DYNAMIC_WORKERS_PER_REQUEST_MAX } from "../../shared/limits.ts";
import type { EngineName, FunctionLimits } from "../../shared/protocol/function.ts";
import { err, ok, type Result } from "../../shared/result.ts";
import type { StoredImage } from "../../shared/rpc-functions.ts";
import { Isolates } from "./isolate/isolates.ts";
import { buildImage } from "./snapshot/build.ts";

export interface Admitted {
  /** Null where the engine has none. */
  readonly image: StoredImage | null;
  readonly snapshotBytes: number;
  readonly initMs: number;
}

/** `invalid_request` says what the bundle threw, and where. */
export async function admitBundle(
  { LOADER }: Pick<Env, "LOADER">,
  engine: EngineName,
  bundle: string,
  limits: FunctionLimits,
): Promise<Result<Admitted, Failure>> {
  if (engine === "snapshot") {
    const built = await buildImage(bundle, limits);
    if (!built.ok) return built;
    const { engineId, manifest, bytes, snapshotBytes, initMs } = built.value;
    return ok({ image: { engineId, manifest, bytes }, snapshotBytes, initMs });
  }
  const startedAtMs = Date.now();
  const fault = await new Isolates(LOADER, PLATFORM_DYNAMIC_WORKERS_PER_REQUEST_MAX).check(bundle);
  if (fault === null) return ok({ image: null, snapshotBytes: 0, initMs: Date.now() - startedAtMs });
  const stack = fault.stack === undefined || fault.stack === "" ? "" : `\n${fault.stack}`;
  return err(failure("invalid_request", `the function cannot be initialised: ${fault.detail}${stack}`));
}
