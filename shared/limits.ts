/**
 * Every bound of Drover, with its unit in its name. The platform's own limits
 * are here too, because local workerd enforces almost none of them: what runs
 * on a laptop must run when deployed. The relations that the code relies on
 * are asserted when this file loads.
 */
import { assert } from "./assert.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

// What the platform allows (Cloudflare, 2026). Never exceeded, locally either.
export const PLATFORM_ROW_BYTES_MAX = 2_000_000;
export const PLATFORM_RPC_BYTES_MAX = 32 * MIB;
export const PLATFORM_CONNECTIONS_PER_INVOCATION_MAX = 6;
export const PLATFORM_SUBREQUESTS_PER_INVOCATION_MAX = 10_000;
/** Distinct dynamic Workers in flight: in one request of a Worker, and in one Durable Object. */
export const PLATFORM_DYNAMIC_WORKERS_PER_REQUEST_MAX = 4;
export const PLATFORM_DYNAMIC_WORKERS_PER_OBJECT_MAX = 10;

// The wire.
export const BODY_BYTES_MAX = 8 * MIB;
export const TASKS_PER_REQUEST_MAX = 20_000;
export const TASKS_PER_GOAL_MAX = 1_000_000;
export const PAGE_ITEMS_DEFAULT = 100;
export const PAGE_ITEMS_MAX = 1_000;
export const WAIT_SECONDS_MAX = 60;
export const STREAMS_PER_GOAL_MAX = 1_024;

// Workers that pull.
export const WORK_QUEUES_PER_GOAL_MAX = 1_000;
/** Claims in one answer, settlements and heartbeats in one request. */
export const CLAIMS_PER_REQUEST_MAX = 1_000;
/** An answer takes no further claim once its inputs have so many characters. */
export const CLAIM_CHARS_MAX = 4_000_000;
/** Claim requests that wait in one goal. */
export const CLAIMERS_WAITING_MAX = 1_024;
/** The code or the detail of a problem that a claimer reports. */
export const PROBLEM_CHARS_MAX = 8_192;
/** Attempts are counted in 16 bits. */
export const ATTEMPT_MAX = 65_535;
export const CLAIM_LEASE_MS_DEFAULT = 30_000;
export const CLAIM_LEASE_MS_MIN = 100;
export const CLAIM_LEASE_MS_MAX = 3_600_000;
export const IDEMPOTENCY_KEY_CHARS_MAX = 255;
export const NAME_CHARS_MAX = 63;
export const TITLE_CHARS_MAX = 256;
export const KEY_CHARS_MAX = 256;
export const PATH_CHARS_MAX = 8_192;
export const LABELS_MAX = 16;
export const LABEL_CHARS_MAX = 128;
export const HEADERS_MAX = 64;
export const HEADER_CHARS_MAX = 8_192;
export const DEPENDENCIES_PER_TASK_MAX = 1_000;
export const DEPTH_MAX = 32;
export const TREE_NODES_MAX = 1_000;
export const UPSTREAMS_MAX = 1_000;
export const ORIGINS_MAX = 16;
export const WEIGHT_MAX = 1_000;
export const TOKENS_MAX = 1_000_000_000_000;
/** What one try of a task may set aside. */
export const CALLS_RESERVED_MAX = 1_000_000;
/** Reservations of one goal that are open, those of calls passed through included. */
export const RESERVATIONS_MAX = 10_000;
export const RESERVATION_MS_MAX = 24 * 3_600_000;
export const RESERVATION_MS_DEFAULT = 600_000;
/** A goal whose question to the account above got no answer asks again after this. */
export const FUNDS_RETRY_MS = 250;
/** An account above that had no more is asked again after this. */
export const FUNDS_ASK_INTERVAL_MS = 30_000;
/** Goals that a tenant tells at once that it has funds again; the others ask again by themselves. */
export const FUNDS_TOLD_MAX = 64;
/** Goals that a tenant knows to wait for funds. */
export const FUNDS_WAITING_MAX = 1_000;
/** A limit, and whatever is added to one. Sums of a few thousand of them are still whole numbers. */
export const BUDGET_MAX = 1_000_000_000_000;
export const DURATION_MS_MAX = 365 * 24 * 3_600_000;

// Tokens and policies.
export const TOKEN_CHARS_MAX = 8_192;
/** Caveats that a token has beside its root. */
export const CAVEATS_MAX = 64;
export const CAVEAT_ITEMS_MAX = 64;
export const CAVEAT_TEXT_CHARS_MAX = 256;
/** Policies that together say what a goal may do. */
export const POLICIES_MAX = 128;
/** Tokens that an isolate remembers to be genuine. */
export const TOKEN_CACHE_MAX = 10_000;
/** How long an isolate relies on the tenant's epoch where it need not be exact. */
export const TENANT_EPOCH_AGE_MS_MAX = 2_000;
// Sub-goals.
/** Tasks of kind `goal` that one goal takes over its life. */
export const SUBGOALS_PER_GOAL_MAX = 10_000;
/** Sub-goals that are being made at once, and messages to sub-goals that wait for their answer. */
export const SUBGOALS_OPENING_MAX = 16;
export const SUBGOAL_MESSAGES_MAX = 64;
/** A sub-goal that changes reports so often, which costs both a commit; where it has many siblings, once in so long for each of them. */
export const SUBGOAL_REPORT_MS = 1_000;
export const SUBGOAL_REPORT_MS_PER_SIBLING = 2;
/** A message between goals that got no answer is sent again: at first after this, then after twice as long, up to the last. */
export const RELATIVE_RETRY_MS = 250;
export const RELATIVE_RETRY_MS_MAX = 10_000;
/** A message that hangs counts as lost after this. */
export const RELATIVE_ANSWER_MS = 10_000;
/** A sub-goal that was not heard of for so long is asked whether it is still there. */
export const SUBGOAL_SILENCE_MS = 600_000;
/** An ended sub-goal is kept at least so long: longer than any message can be under way, so that none makes it anew. */
export const SUBGOAL_RETENTION_MS_MIN = 600_000;
/** How long a caller who makes a sub-goal waits for it to be there. */
export const SUBGOAL_WAIT_MS = 20_000;

// Payloads.
export const RESPONSE_BYTES_MAX = 8 * MIB;
/** A result line up to this size is packed with its neighbours; a larger one gets chunk rows of its own. */
export const INLINE_PAYLOAD_BYTES_MAX = 64 * KIB;
/** Rows are cut at this size, well under the platform's bound. */
export const CHUNK_BYTES_MAX = 1_000_000;
/** Text rows are cut by characters, of which one takes at most three bytes. */
export const ROW_CHARS_MAX = 590_000;
/** Journal and offers that a wake may have to read again before a snapshot is worth its rows. */
export const REPLAY_BYTES_MAX = 4 * MIB;
/** Parsed offers that stay in memory, by the size of their text. */
export const OFFER_CACHE_BYTES_MAX = 12 * MIB;

// Time.
export const TIMEOUT_MS_DEFAULT = 30_000;
export const TIMEOUT_MS_MAX = 600_000;
export const LEASE_GRACE_MS = 10_000;
/** While anything runs, the alarm is never further away than this. */
export const WATCHDOG_MS = 1_000;
/** How often a goal looks whether an upstream that its tasks wait for is back. */
export const STALLED_MS = 30_000;
export const IDLE_MS_DEFAULT = 24 * 3_600_000;
export const RETENTION_MS_DEFAULT = 7 * 24 * 3_600_000;
/** A goal whose deletion did not come to its end tries it again after this. */
export const DELETION_RETRY_MS = 60_000;
/** How old a goal's copy of the upstream registry may be while it has work. */
export const REGISTRY_AGE_MS_MAX = 2_000;

// Retries. Full jitter: U(0, min(cap, base * 2^n)).
export const RETRY_BASE_MS = 50;
export const RETRY_CAP_MS = 20_000;
export const ATTEMPTS_DEFAULT = 5;
export const ATTEMPTS_MAX = 20;
export const RETRY_AFTER_MS_MAX = 3_600_000;
/** The retry budget of a goal at an upstream: a share of its successes, up to a burst; beyond it, retries are spread out. */
export const RETRY_BUDGET_SHARE = 0.1;
export const RETRY_BUDGET_MAX = 100;
export const RETRY_BUDGET_START = 10;
export const RETRY_SPREAD_MS = 100;
/** A lost executor says more about the task than a restart of the coordinator does: 3 of one, or 12 of the other, in a row. */
export const SUSPICION_EXECUTOR_LOST = 4;
export const SUSPICION_RESTART = 1;
export const SUSPICION_POISON = 12;
/** How long calls to an upstream rest when no executor could take them. */
export const EXECUTOR_OVERLOADED_REST_MS = 1_000;
export const EXECUTOR_UNREACHABLE_REST_MS = 250;

// Commits. A burst of small ones is free; a stream of them is slowed, because each is a row that is paid for.
export const TURN_MS = 5;
export const COMMIT_BURST = 50;
export const COMMITS_PER_SECOND = 8;
/** So many results earn one commit more. */
export const RESULTS_PER_COMMIT = 20;
/** A request body up to this size waits a moment for others to share its commit. */
export const SHARED_COMMIT_BYTES_MAX = 64 * KIB;

// Dispatch.
export const BATCH_LANES_MAX = 6;
export const BATCH_TASKS_MAX = 128;
/** A batch is sized to take about this long. Longer ones are a little cheaper, and let more tasks wait behind a straggler. */
export const BATCH_DURATION_MS_TARGET = 100;
/** Calls up to this long go so many to a lane where a goal has few permits, so that few wait for a commit. */
export const SHORT_CALL_MS = 150;
export const SHORT_CALLS_PER_LANE = 3;
/** A window of results that are not durable yet is sized for so many calls, where the upstream declares no `maxConcurrency`. */
export const LANES_DEFAULT = 66;

// Functions.
/** Functions that the tasks of one goal run. */
export const FUNCTIONS_PER_GOAL_MAX = 1_000;
/** Runs of one function that a goal has open at once, and how many of them go into one batch. */
export const RUN_WINDOW_TASKS = 256;
export const RUN_BATCH_TASKS_MAX = 64;
export const RUN_BATCH_TASKS_MIN = 4;
/** A run that has not begun after this, because its executor is full, goes back into the queue. */
export const RUN_PATIENCE_MS = 5_000;
/** A function whose runs cannot afford their calls is tried again after this, and then after twice as long. */
export const RUN_STARVED_MS = 50;
export const RUN_STARVED_MS_MAX = 2_000;

// What running functions ask of the world.
/** A gate that says nothing of what it holds of a goal's budget has spent it. It says so three times within. */
export const TAB_MS = 30_000;
/** What a gate does not need of what it held is given back after this, and what it has spent is told. */
export const TAB_REPORT_MS = 100;
export const TAB_SPENT_MS = 500;
/** Calls that are paid for ahead of their time, for one batch at one upstream. */
export const HAND_SPARE_MAX = 64;
/** Calls that one batch has paid for at one upstream. */
export const HAND_CALLS_MAX = 1_024;
/** Permits that one batch holds at one upstream. */
export const HAND_PERMITS_MAX = 6;
/** A batch gives back to its gate what it has not used for so long. */
export const HAND_NEWS_MS = 40;
/** Calls that went well are told of after this, where there is nothing else to say. */
export const HAND_REPORT_MS = 100;
/** A gate that has nothing yet for a batch that waits says so after this. */
export const HAND_HOLD_MS = 500;
/** A batch whose gate is lost tries so often to find it again. */
export const HAND_TRIES_MAX = 3;
/** Of an answer's headers. */
export const HOST_HEADERS_CHARS_MAX = 16 * KIB;
/** Tasks whose results a run asks for at once, and the length of the answer. */
export const HOST_RESULTS_MAX = 1_000;
export const HOST_RESULTS_CHARS_MAX = 4_000_000;
/** How long a run waits for a lock, at most. */
export const HOST_LOCK_WAIT_MS_MAX = 60_000;

// Admission: leases of permits. `facts` of the algorithms are in docs/governor.md.
/** The least that a lease lasts; long calls get longer ones. */
export const LEASE_TTL_MS_MIN = 5_000;
export const LEASE_TTL_MS_MAX = 15_000;
/** The share of a lease that its client uses, on its own clock. */
export const LEASE_USE = 0.8;
/** A client reports after so many results, and not more often than this. */
export const ASK_RESULTS = 8;
export const ASK_INTERVAL_MS = 50;
export const REFUSED_ASK_INTERVAL_MS = 10;
/** A report that got no answer is followed by another after this. */
export const ASK_RETRY_MS = 250;
/** The limit of an upstream that declares none: where it starts, and where it ends. */
export const LIMIT_START = 66;
export const LIMIT_MIN = 4;
export const LIMIT_MAX = 1_000;
/** Slow answers alone do not bring the limit of an upstream that declares none below this. */
export const LIMIT_LEAST_BY_SLOWNESS = 12;
export const LIMIT_WINDOW_MS = 200;
export const LIMIT_WINDOW_CALLS_MIN = 5;
/** The least duration of a call without queueing is measured anew after about so many windows. */
export const LIMIT_BASELINE_WINDOWS = 240;
/** Calls up to this long leave the limit of an upstream that declares none where it starts. */
export const LIMIT_FAST_MS = 40;
/** Calls shorter than this, and queueing that adds less than the noise, are not worth a lower limit. */
export const LIMIT_SLACK_MS = 20;
export const LIMIT_NOISE_MS = 10;
/** What each priority below the first gets of the limit, however much the ones above it want. */
export const BAND_FLOOR = 0.05;
/** A governor waits so long between two raises that it tells a client of by itself. */
export const PUSH_INTERVAL_MS = 25;
/** So many calls in a row that did not reach the upstream open its circuit: fewer than a single task makes, so that it waits and does not fail. */
export const CIRCUIT_FAILURES = 4;
export const PROBE_INTERVAL_MS = 125;
/** An origin that failed, while others work, is tried again after this, and then after twice as long. */
export const ORIGIN_REST_MS = 1_000;
export const ORIGIN_REST_MS_MAX = 30_000;
/** How much a rate of calls may bunch, and a rate of tokens. */
export const RATE_SLICE_MS = 150;
export const TOKEN_SLICE_MS = 5_000;
/** How long the end of an aborted call takes to arrive at the upstream, at most. */
export const ABORT_MS = 20;
/** After so many calls, the latencies of those before count half. */
export const LATENCY_CALLS = 5_000;
/** How long a governor without clients waits before it writes that it is idle. */
export const GOVERNOR_IDLE_MS = 2_000;

// Locks and shared state.
export const LOCK_NAME_CHARS_MAX = 128;
export const HOLDER_CHARS_MAX = 512;
export const LOCK_TTL_MS_MIN = 100;
export const LOCK_TTL_MS_DEFAULT = 30_000;
export const LOCK_TTL_MS_MAX = 3_600_000;
export const LOCK_PERMITS_MAX = 10_000;
export const LOCKS_PER_TASK_MAX = 16;
/** Locks in use at once in a goal, or in one shard of the tenant's. */
export const LOCKS_MAX = 100_000;
export const HOLDERS_PER_LOCK_MAX = 10_000;
export const WAITERS_PER_LOCK_MAX = 20_000;
/** When a caller that got no lock is told to come again. */
export const LOCK_RETRY_MS_MIN = 1_000;
export const LOCK_RETRY_MS_MAX = 30_000;
/** Objects that the tenant's locks are spread over, by their names. */
export const LOCK_SHARDS = 16;
/** So many commands within so long have turns of their own; more than them share turns. */
export const LOCKS_ALONE_MAX = 4;
export const LOCK_CALM_MS = 5;
/** How long a shard keeps a lock, or a place in its queue, for a goal that says nothing. Renewed in the first third. */
export const TENANT_LOCK_TTL_MS = 15_000;
/** Places in the queue of one shared lock that a goal takes at once. */
export const LOCK_PLACES_MAX = 64;
/** Locks that a goal asks a shard for in one message. */
export const LOCKS_PER_MESSAGE_MAX = 1_000;
/** Changes of locks that a wake may have to read again before a snapshot is worth its rows. */
export const LOCK_REPLAY_BYTES_MAX = 1 * MIB;
export const STATE_VALUE_BYTES_MAX = 64 * KIB;
export const STATE_KEYS_MAX = 10_000;
export const STATE_BYTES_MAX = 64 * MIB;
/** Holders of one lock that a GET lists. */
export const LOCK_HOLDERS_SHOWN_MAX = 100;

// Calls passed through.
/** Gates that one caller's calls are spread over: an object takes about a thousand requests a second. */
export const PROXY_SHARDS = 4;
/** Calls that wait at one gate for one upstream. Beyond it a herd is told to come later. */
export const GATE_WAITING_MAX = 20_000;
/** A gate that was given all it asked for tells of new callers after this: they are on the line. */
export const GATE_ASK_INTERVAL_MS = 5;
/** Permits that a gate without calls keeps, at most so long after it last asked, where there are plenty: the next call then asks nobody. */
export const GATE_REST_PERMITS_MAX = 4;
export const GATE_REST_MS = 1_000;
/** How often a gate looks for calls whose patience has ended. */
export const GATE_SWEEP_MS = 100;
/** A failed call that may be repeated is sent so many times more. */
export const PROXY_RETRIES_MAX = 2;
/** An answer up to this size is kept under its `Idempotency-Key`, for so long. */
export const IDEMPOTENT_ANSWER_BYTES_MAX = 1 * MIB;
export const IDEMPOTENT_ANSWER_MS = 24 * 3_600_000;
/** Rows that one alarm of a gate deletes. */
export const GATE_PAGE_ROWS = 1_000;

/** An executor gives the rest of a batch back after so many calls in a row that the upstream refused or that did not reach it. */
export const EXECUTOR_FAILURES_MAX = 3;
export const EXECUTOR_PATIENCE_MS = 100;
export const EXECUTOR_CHUNK_INTERVAL_MS = 50;
/** Results that wait to be sent are flushed at this size, whatever the interval. */
export const EXECUTOR_BUFFER_BYTES_MAX = 1 * MIB;

// Functions. `facts` of the engine are in docs/functions/engine.md.
/** Units of fuel that stand for a millisecond on the processor: by kind of work it is between 0.4 and 3 of them. */
export const FUNCTION_FUEL_PER_MS = 150_000;
export const FUNCTION_CPU_MS_DEFAULT = 100;
export const FUNCTION_CPU_MS_MAX = 10_000;
/** What an invocation may allocate beyond its image. */
export const FUNCTION_MEMORY_BYTES_DEFAULT = 16 * MIB;
export const FUNCTION_MEMORY_BYTES_MAX = 64 * MIB;
export const FUNCTION_BUNDLE_BYTES_MAX = 4 * MIB;
/** Of a tenant; goals have a line of each. */
export const FUNCTIONS_MAX = 1_000;
/** The image of a version that the registry has no more is kept so long for runs that have begun; one that it has is looked after so often. */
export const IMAGE_KEPT_MS = 3_600_000;
export const IMAGE_CHECK_MS = 86_400_000;
/** Whoever waits for an image that another request loads loads it itself after this, because that request may have ended. */
export const IMAGE_WAIT_MS = 5_000;
/** Bundles of the other engine that an isolate keeps at hand. */
export const BUNDLES_BYTES_MAX = 16 * MIB;
/** Instances that are made for a version that is announced. */
export const WARM_INSTANCES = 16;
/** An invocation outside any goal. */
export const INVOKE_TIMEOUT_MS_MAX = 60_000;
export const FUNCTION_INIT_CPU_MS_MAX = 5_000;
export const FUNCTION_INIT_MEMORY_BYTES_MAX = 32 * MIB;
export const FUNCTION_STACK_BYTES = 256 * KIB;
export const FUNCTION_OUTPUT_CHARS_MAX = 1 * MIB;
/** What one invocation may ask of the host: at once, in all, and how long what it asks may be. */
export const FUNCTION_ASKS_OPEN_MAX = 256;
export const FUNCTION_ASKS_MAX = 10_000;
export const FUNCTION_ASK_CHARS_MAX = 8 * MIB;
export const FUNCTION_TIMERS_MAX = 1_000;
export const FUNCTION_LOGS_MAX = 1_000;
export const FUNCTION_LOG_CHARS_MAX = 4_096;
/** Instances of one isolate, and images that it keeps at hand. The rest of its 128 MB is for everybody else. */
export const SANDBOX_INSTANCES_BYTES_MAX = 56 * MIB;
export const SANDBOX_IMAGES_BYTES_MAX = 24 * MIB;
/** What instances in use may grow to together; whoever grows beyond is ended, to be tried again. */
export const SANDBOX_GROWN_BYTES_MAX = 72 * MIB;
/** An instance that is not back so long after its invocation had to end never comes, because its request was canceled. */
export const SANDBOX_LEASE_GRACE_MS = 1_000;
/** Whoever has waited for an instance, and does not come for it within this, has gone. */
export const SANDBOX_HANDOVER_MS = 500;
/** Whoever waits looks so often whether something should be back. */
export const SANDBOX_LOOK_MS = 500;
/** The local server collects garbage after so many calls, */
export const GARBAGE_CALLS = 1_000;
/** and spends at most about this share of its time with it. */
export const GARBAGE_TIME_SHARE = 1 / 20;
/** Instances of one version, however small. */
export const SANDBOX_INSTANCES_MAX = 48;
/** A version that overran its time gets a quarter of it for its next invocations, and not less than this. */
export const FUNCTION_STRIKE_SHARE = 0.25;
export const FUNCTION_STRIKE_CPU_MS_MIN = 2;
/** So long after its last overrun a version has its whole time again. */
export const FUNCTION_STRIKE_MS = 1_000;

assert(BODY_BYTES_MAX < PLATFORM_RPC_BYTES_MAX, "a request body must fit one RPC message");
assert(CLAIM_CHARS_MAX * 3 + BODY_BYTES_MAX < PLATFORM_RPC_BYTES_MAX, "an answer with claims must fit one RPC message");
assert(CHUNK_BYTES_MAX < PLATFORM_ROW_BYTES_MAX, "a chunk must fit the platform's row");
assert((ROW_CHARS_MAX + INLINE_PAYLOAD_BYTES_MAX) * 3 < PLATFORM_ROW_BYTES_MAX, "a packed row must fit the platform's row");
assert(BATCH_LANES_MAX <= PLATFORM_CONNECTIONS_PER_INVOCATION_MAX, "a batch must obey the connection limit");
assert(BATCH_TASKS_MAX < PLATFORM_SUBREQUESTS_PER_INVOCATION_MAX, "a batch must obey the subrequest limit");
assert(SUBGOAL_RETENTION_MS_MIN > RELATIVE_ANSWER_MS, "a message that made a sub-goal must not find it deleted");
assert(SUBGOALS_OPENING_MAX <= SUBGOAL_MESSAGES_MAX, "making sub-goals must leave room for other messages");
assert(RUN_PATIENCE_MS < LEASE_GRACE_MS, "a run that waits for its executor must not be taken for lost");
assert(PAGE_ITEMS_DEFAULT <= PAGE_ITEMS_MAX, "the default page must be a legal page");
assert(EXECUTOR_BUFFER_BYTES_MAX + BATCH_LANES_MAX * 2 * RESPONSE_BYTES_MAX < 128 * MIB, "an executor's buffers must fit an isolate");
// Of the engine's growth nothing is known until the guest waits for something; only one guest runs at a time.
assert(
  SANDBOX_GROWN_BYTES_MAX + FUNCTION_MEMORY_BYTES_DEFAULT + SANDBOX_IMAGES_BYTES_MAX < 120 * MIB,
  "what functions may grow to must fit an isolate",
);
assert(HAND_PERMITS_MAX <= PLATFORM_CONNECTIONS_PER_INVOCATION_MAX, "what a batch of functions calls must obey the connection limit");
