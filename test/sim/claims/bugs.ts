/** Bugs that are planted in claims, to show that the checkers find them. */
import type { Bug } from "../bugs.ts";

const CLAIMS = "durable-objects/goal/core/claims.ts";

export const CLAIM_BUGS: Readonly<Record<string, Bug>> = {
  "settle-older-claim": {
    says: "a settlement of an older attempt counts",
    file: CLAIMS,
    from: "if (!isWork(state, task) || tasks.attempt[task] !== attempt) return",
    to: "if (!isWork(state, task)) return",
  },
  "revive-claim": {
    says: "a claim whose lease has ended is extended by a heartbeat",
    file: CLAIMS,
    from: 'if (status === RUNNING) return "held";',
    to: 'if (status === RUNNING || status === QUEUED) return "held";',
  },
  "forget-to-write-grant": {
    says: "a grant is not in the journal",
    file: CLAIMS,
    from: "  rec.out.changes.push(change);\n",
    to: '  if (change.kind !== "claims.granted") rec.out.changes.push(change);\n',
  },
  "lose-spawn": {
    says: "a settlement counts, and its children are lost",
    file: CLAIMS,
    from: "  const receipts = take(rec, submit, draft.value, policies);\n",
    to: "  const receipts = { tasks: [], joins: [] };\n",
  },
  "misplace-spawn": {
    says: "the children of a second settlement are looked up from the offer's first place on",
    file: CLAIMS,
    from: "within: { offer, base: from },",
    to: "within: { offer, base: 0 * from },",
  },
  "claim-while-paused": {
    says: "a paused goal hands out work",
    file: CLAIMS,
    from: "number < 0 || isPaused(state) ?",
    to: "number < 0 ?",
  },
  "forget-problem": {
    says: "a problem is not kept with its task",
    file: CLAIMS,
    from: "  tasks.resultRow[task] = resultRow;\n",
    to: "",
  },
  "forget-claim-timers-on-load": {
    says: "leases of claims never end once a snapshot was loaded",
    file: "durable-objects/goal/core/snapshot.ts",
    from: "if (isClaimed) addTimer",
    to: "if (isClaimed && tasks.n === 0) addTimer",
  },
  "forget-extended-lease": {
    says: "an extended lease ends a minute late",
    file: CLAIMS,
    from: "if (untilMs > rec.nowMs) addTimer(timers, untilMs, task);",
    to: "if (untilMs > rec.nowMs) addTimer(timers, untilMs + 60_000, task);",
  },
};
