/** From the parsed tasks of a request to what the core takes: checked specs, faults, and keys derived from content. */
import { hexOf } from "../../shared/bytes.ts";
import { type Failure, failure } from "../../shared/errors.ts";
import { contentOf } from "../../shared/protocol/canonical.ts";
import { goalFaults } from "../../shared/protocol/goal.ts";
import { isTaskSpec, type TaskSpec } from "../../shared/protocol/task.ts";
import { taskFaults } from "../../shared/protocol/task-schema.ts";

export interface Prepared {
  readonly specs: readonly (TaskSpec | null)[];
  readonly failures: ReadonlyMap<number, Failure>;
  readonly contentKeys: ReadonlyMap<number, string>;
}

export async function prepare(values: readonly unknown[]): Promise<Prepared> {
  const failures = new Map<number, Failure>();
  const contentKeys = new Map<number, string>();
  const specs = values.map((value, place) => {
    if (!isTaskSpec(value)) {
      const errors = taskFaults(value, "");
      const detail = errors[0] === undefined ? "this is not a task" : `${errors[0].pointer || "the task"} ${errors[0].detail}`;
      failures.set(place, failure("invalid_request", detail, { errors }));
      return null;
    }
    if (value.goal !== undefined) {
      const errors = goalFaults(value.goal, "/goal");
      if (errors[0] !== undefined) {
        failures.set(place, failure("invalid_request", `${errors[0].pointer} ${errors[0].detail}`, { errors }));
        return null;
      }
    }
    if (value.dedupe === "content") contentKeys.set(place, "");
    return value;
  });
  // A Map keeps its order while its values change, so the first of equal tasks stays the first.
  await Promise.all([...contentKeys.keys()].map(async (place) => contentKeys.set(place, await contentKey(specs[place]!))));
  return { specs, failures, contentKeys };
}

/** SHA-256: two different pieces of work must never be taken for the same work. */
async function contentKey(spec: TaskSpec): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(contentOf(spec)));
  return `sha256:${hexOf(new Uint8Array(digest))}`;
}
