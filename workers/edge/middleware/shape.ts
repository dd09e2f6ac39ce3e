/** JSON bodies of a known shape: read, checked, and refused with the JSON pointer of each fault. */
import * as v from "valibot";
import { type Failure, failure, type Fault } from "../../../shared/errors.ts";
import { faultsOf } from "../../../shared/protocol/faults.ts";
import { err, ok, type Result } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { type Body, readJsonObject } from "./body.ts";

/** `what` is what the caller sent, as the subject of a sentence. */
export function invalid(what: string, errors: readonly Fault[]): Failure {
  return failure("invalid_request", `${what} is not valid; see errors`, { errors });
}

/** The body as `parse` has it, and as it came. */
export async function readAs<T>(
  request: Request,
  what: string,
  parse: (body: unknown) => Result<T, Fault[]>,
): Promise<Answer<{ readonly body: Body; readonly value: T }>> {
  const read = await readJsonObject(request);
  if (!read.ok) return read;
  const parsed = parse(read.value.value);
  return parsed.ok ? ok({ body: read.value.body, value: parsed.value }) : err(invalid(what, parsed.error));
}

/** A schema as something to parse by. */
export function bySchema<S extends v.GenericSchema>(schema: S): (body: unknown) => Result<v.InferOutput<S>, Fault[]> {
  return (body) => {
    const parsed = v.safeParse(schema, body);
    return parsed.success ? ok(parsed.output) : err(faultsOf(parsed, ""));
  };
}
