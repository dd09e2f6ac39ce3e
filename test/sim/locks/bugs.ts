/** Bugs planted in the world of locks. */
import type { Bug } from "../bugs.ts";

const TABLE = "shared/policy/lock-table.ts";
const STEPS = "shared/policy/lock-steps.ts";
const core = (name: string): string => `durable-objects/goal/core/${name}.ts`;

export const LOCK_BUGS: Readonly<Record<string, Bug>> = {
  "two-holders": {
    says: "an exclusive request has room beside a holder",
    file: TABLE,
    from: '  if (mode === "exclusive") return false;\n',
    to: '  if (mode === "exclusive") return holds.size < 2;\n',
  },
  overtake: {
    says: "a newcomer gets a shared lock although a writer waits",
    file: TABLE,
    from: "(lock.waiting.size === 0 && hasRoom(lock, want.mode))",
    to: "hasRoom(lock, want.mode)",
  },
  "forget-fence": {
    says: "a snapshot is loaded without the latest fence",
    file: TABLE,
    from: "fence: image.fence, nextSeq: image.nextSeq, released",
    to: "fence: 0, nextSeq: image.nextSeq, released",
  },
  "wait-on": {
    says: "a wait that is over stays in the queue",
    file: STEPS,
    from: '    decide({ kind: "gone", seq });\n    freed.push(...queues);',
    to: "    freed.push(...queues, String(seq).slice(0, 0));",
  },
  "expire-nothing": {
    says: "a hold that runs out stays",
    file: STEPS,
    from: 'for (const [name, fence] of due.holds) decide({ kind: "released", name, fence, isWanted: false });',
    to: "",
  },
  "keep-locks": {
    says: "an ended task keeps its locks",
    file: core("mutate"),
    from: "  if ((tasks.flags[task]! & LOCKED) !== 0) endLocks(state, task);\n",
    to: "",
  },
  "forget-release": {
    says: "a shard is not told that an ended task has left its lock",
    file: core("locks"),
    from: "    tenant.dropped.push({ task, name, holder, fence });\n",
    to: "",
  },
  "trust-too-long": {
    says: "a goal trusts a lock of the tenant from when its grant came, and for longer than its lease",
    file: core("tenant-locks"),
    from: "  const untilMs = message.sentAtMs + TENANT_LOCK_TTL_MS * LEASE_USE;",
    to: "  const untilMs = nowMs + (TENANT_LOCK_TTL_MS * 1.3) / LEASE_USE;",
  },
  "trust-on": {
    says: "a lease that has run out changes nothing",
    file: core("tenant-locks"),
    from: "    if (untilMs <= rec.nowMs) over.push(task);\n    else",
    to: "    if (untilMs > rec.nowMs)",
  },
  "run-outside": {
    says: "a task runs although the one above it has yet to get its locks",
    file: core("place"),
    from: "if (lacksLocks(flags) || isOutside(state, task))",
    to: "if (lacksLocks(flags) || (isOutside(state, task) && task < 0))",
  },
  "leave-again": {
    says: "a goal that was loaded says again that a task left a queue, though the task has the lock by now",
    file: core("tenant-locks"),
    from: " && !isTakenBack(tenant, one)",
    to: "",
  },
};
