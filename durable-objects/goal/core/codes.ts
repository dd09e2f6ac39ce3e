/** The numbers that stand in the columns for the vocabulary's words. Append only: they are on disk. */
import type { TaskErrorCode } from "../../../shared/errors.ts";
import type { TaskStatus } from "../../../shared/protocol/goal.ts";

export const QUEUED = 0;
export const WAITING = 1;
export const RUNNING = 2;
export const SUCCEEDED = 3;
export const FAILED = 4;
export const CANCELED = 5;
export const EXPIRED = 6;
export const STATUS_WORDS: readonly TaskStatus[] = ["queued", "waiting", "running", "succeeded", "failed", "canceled", "expired"];

/** Terminal states absorb. */
export const isTerminal = (status: number): boolean => status >= SUCCEEDED;

export const NO_REASON = 0;
export const FOR_CHILDREN = 1;
export const FOR_AFTER = 2;
export const FOR_BACKOFF = 3;
export const FOR_OUTCOME = 4;
export const FOR_LOCK = 5;
export const FOR_APPROVAL = 6;
export const FOR_FLIGHT = 7;
export const REASON_WORDS = ["", "children", "after", "backoff", "outcome_unknown", "lock", "approval", "coalesce"] as const;

/** May be sent again after it may have reached the upstream. */
export const IDEMPOTENT = 1;
/** Has no work of its own. */
export const GROUP = 2;
/** Its own work has succeeded; it lives on for its children. */
export const WORK_DONE = 4;
/** Has started, or (a group) been released: its time to live no longer counts. */
export const STARTED = 8;
/** A dependency ended otherwise than `after` allows. */
export const DEPENDENCY_FAILED = 16;
/** Its work is done by whoever claims it. */
export const WORK = 32;
/** Its work is a goal of its own. */
export const SUBGOAL = 64;
/** Declares locks. */
export const LOCKED = 128;
/** Has the locks that it declares. */
export const HAS_LOCKS = 256;
/** Must be approved before it starts. */
export const NEEDS_APPROVAL = 512;
/** Was approved. */
export const APPROVED = 1024;
/** Its work is a function. */
export const RUN = 2048;
/** Declared to be safe to have open twice at once. */
export const HEDGEABLE = 4096;

export const CODES: readonly (TaskErrorCode | "")[] = [
  "",
  "upstream_error",
  "upstream_timeout",
  "result_too_large",
  "dependency_failed",
  "children_failed",
  "outcome_unknown",
  "poison",
  "expired",
  "canceled",
  "parent_failed",
  "denied",
  "budget_exhausted",
  "lock_conflict",
  "lock_lost",
  "function_error",
  "function_limit",
];

export const codeOf = (word: TaskErrorCode): number => CODES.indexOf(word);
