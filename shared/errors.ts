/**
 * The closed set of error codes. A code is what crosses RPC, what stands on
 * the wire (RFC 9457 problem+json) and the name of its metric.
 */
export interface ErrorKind {
  readonly status: number;
  readonly title: string;
  readonly retryable: boolean;
}

const kind = (status: number, title: string, retryable = false): ErrorKind => ({ status, title, retryable });

/** Answers to requests. */
export const REQUEST_ERRORS = {
  invalid_request: kind(400, "The request is not valid"),
  unauthorized: kind(401, "A valid bearer token is needed"),
  permission_denied: kind(403, "The token does not permit this"),
  not_found: kind(404, "There is no such resource"),
  method_not_allowed: kind(405, "The resource does not take this method"),
  goal_sealed: kind(409, "The goal is sealed and takes no more tasks"),
  goal_ended: kind(409, "The goal has ended"),
  conflict: kind(409, "The resource is not in a state that allows this"),
  stale_attempt: kind(409, "A newer attempt of the task exists"),
  stale_fence: kind(409, "A later holder has the lock"),
  stale_version: kind(409, "The value has changed since it was read"),
  payload_too_large: kind(413, "The request body is too large"),
  idempotency_key_reused: kind(422, "The idempotency key was used for another request"),
  lock_held: kind(423, "Somebody else holds the lock", true),
  quota_exceeded: kind(429, "A quota is exhausted", true),
  temporary_reduced_capacity: kind(503, "The service cannot take this right now", true),
  internal: kind(500, "Something went wrong inside Drover", true),
} as const satisfies Record<string, ErrorKind>;

/** Reasons why a task did not succeed. */
export const TASK_ERRORS = {
  upstream_error: kind(502, "The upstream answered with an error"),
  upstream_timeout: kind(504, "The upstream did not answer in time", true),
  result_too_large: kind(502, "The upstream's answer is too large to keep"),
  function_error: kind(500, "The function failed"),
  function_limit: kind(500, "The function went beyond a limit"),
  dependency_failed: kind(424, "A task that this one comes after did not succeed"),
  children_failed: kind(424, "Too many children did not succeed"),
  parent_failed: kind(424, "The parent ended, so this task was canceled"),
  outcome_unknown: kind(502, "The call may or may not have had its effect"),
  poison: kind(500, "Executors were lost again and again while running this task"),
  expired: kind(504, "The task was not done by its deadline"),
  canceled: kind(409, "The task was canceled"),
  budget_exhausted: kind(429, "The budget is exhausted", true),
  lock_conflict: kind(409, "A lock cannot be had as the task declares it"),
  lock_lost: kind(409, "A lock that the task held was lost", true),
  denied: kind(403, "The policy, or whoever was asked, denied the task"),
} as const satisfies Record<string, ErrorKind>;

export type RequestErrorCode = keyof typeof REQUEST_ERRORS;
export type TaskErrorCode = keyof typeof TASK_ERRORS;
export type ErrorCode = RequestErrorCode | TaskErrorCode;

export const ERRORS: Readonly<Record<ErrorCode, ErrorKind>> = { ...REQUEST_ERRORS, ...TASK_ERRORS };

/** One fault in a request's body: an RFC 6901 pointer and what is wrong there. */
export interface Fault {
  readonly pointer: string;
  readonly detail: string;
}

/** A failure as it crosses RPC. The edge adds status, type and title from the code. */
export interface Failure {
  readonly code: ErrorCode;
  readonly detail: string;
  readonly errors?: readonly Fault[];
  readonly retryAfterMs?: number;
  /** How many are ahead in the queue. */
  readonly position?: number;
  readonly goalId?: string;
  readonly taskId?: string;
}

/** RFC 9457. */
export interface Problem extends Failure {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly retryable: boolean;
}

export function failure(code: ErrorCode, detail: string, extra: Partial<Failure> = {}): Failure {
  return { code, detail, ...extra };
}

export function problemOf(fault: Failure): Problem {
  const { status, title, retryable } = ERRORS[fault.code];
  return { type: `urn:drover:error:${fault.code}`, title, status, retryable, ...fault };
}
