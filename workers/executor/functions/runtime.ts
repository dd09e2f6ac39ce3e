/** What functions run on in this isolate, in the batches of one executor. */
import type { FunctionVersion } from "../../../shared/protocol/function.ts";
import { type Place, programOf, warm } from "../../sandbox/programs.ts";
import type { FunctionsHost } from "./run-functions.ts";

export function runtimeOf(env: Env, place: Place): Pick<FunctionsHost, "programOf"> {
  return { programOf: (version) => programOf(env, place, version) };
}

export function warmUp(env: Env, place: Place, version: FunctionVersion): Promise<void> {
  return warm(env, place, version);
}
