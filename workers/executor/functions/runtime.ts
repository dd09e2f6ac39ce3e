/** What functions run on in this isolate. */
import type { FunctionHost } from "../host/types.ts";
import type { FunctionsHost } from "./run-functions.ts";

const NO_USAGE = { calls: 0, tokens: 0, costMicros: 0 };

/** A host that answers nothing. */
const NOBODY: FunctionHost = {
  callsOf: () => async (op) => {
    throw new Error(`there is nobody to ask for ${op}`);
  },
  usageOf: () => NO_USAGE,
  end: async () => undefined,
};

export function runtimeOf(): Pick<FunctionsHost, "programOf" | "hostOf"> {
  return {
    programOf: async ({ engine }) => {
      throw new Error(`there is no engine "${engine}"`);
    },
    hostOf: () => NOBODY,
  };
}
