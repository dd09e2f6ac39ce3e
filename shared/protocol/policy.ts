/** A policy as a caller writes it: in a goal, and as the tenant's default. */
import * as v from "valibot";
import type { Fault } from "../errors.ts";
import { CAVEAT_ITEMS_MAX, CAVEAT_TEXT_CHARS_MAX, DEPTH_MAX, TASKS_PER_GOAL_MAX } from "../limits.ts";
import { type Policy, plainPath } from "../policy/rules.ts";
import { err, ok, type Result } from "../result.ts";
import { faultsOf } from "./faults.ts";
import { integer, object } from "./task-schema.ts";

const text = v.pipe(
  v.string(),
  v.minLength(1, "must not be empty"),
  v.maxLength(CAVEAT_TEXT_CHARS_MAX, `must have at most ${CAVEAT_TEXT_CHARS_MAX} characters`),
);
const listOf = <T extends v.GenericSchema>(item: T) =>
  v.pipe(v.array(item), v.maxLength(CAVEAT_ITEMS_MAX, `must have at most ${CAVEAT_ITEMS_MAX} entries`));

const method = v.pipe(text, v.regex(/^[A-Z*]+$/, 'must be a method in capitals, such as GET, or "*"'));
// Otherwise it would match nothing, and a call would go without the approval that was asked for.
const path = v.pipe(
  text,
  v.regex(/^[/*][^?#]*$/, 'must begin with "/" or "*" and have no query'),
  v.check((glob) => plainPath(glob) === glob, "must not percent-encode what needs no encoding, and encode in capitals"),
);

export const policySchema = object({
  upstreams: v.optional(listOf(text)),
  methods: v.optional(listOf(method)),
  paths: v.optional(listOf(path)),
  functions: v.optional(listOf(text)),
  queues: v.optional(listOf(text)),
  maxDepth: v.optional(integer(0, DEPTH_MAX)),
  maxChildrenPerTask: v.optional(integer(0, TASKS_PER_GOAL_MAX)),
  requireApproval: v.optional(listOf(object({ upstream: text, method: v.optional(method), path: v.optional(path) }))),
});

/** Reads the body of `PUT /v1/policy`. */
export function parsePolicy(body: unknown): Result<Policy, Fault[]> {
  const parsed = v.safeParse(policySchema, body);
  return parsed.success ? ok(parsed.output as Policy) : err(faultsOf(parsed, ""));
}
