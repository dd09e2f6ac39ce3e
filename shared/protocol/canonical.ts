/**
 * JSON with its members sorted, so that equal values give equal text: the
 * member order of RFC 8785 (JCS), with numbers and strings as JSON.stringify
 * writes them, which is what RFC 8785 asks for.
 */
import type { TaskSpec } from "./task.ts";

export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item ?? null)).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
  return `{${members.join(",")}}`;
}

/** What makes two tasks the same work: everything that the upstream, the function, or whoever claims it, gets to see. */
export function contentOf({ call, run, work, goal }: TaskSpec): string {
  if (goal !== undefined) return canonicalJson({ goal });
  if (run !== undefined) return canonicalJson({ function: run.function, input: run.input ?? null });
  if (call === undefined) return canonicalJson({ queue: work?.queue, input: work?.input ?? null });
  const headers = Object.fromEntries(Object.entries(call.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]));
  return canonicalJson({ ...call, method: call.method ?? "GET", headers, idempotent: undefined });
}
