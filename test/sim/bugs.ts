/**
 * Bugs that are planted to show that the checkers would find them. The source
 * on disk stays as it is: a loader hook changes the text of one module on its
 * way in, and fails where the text it changes is not there exactly once.
 */
import { registerHooks } from "node:module";
import { GOAL_BUDGET_BUGS } from "./budgets/bugs.ts";
import { CLAIM_BUGS } from "./claims/bugs.ts";
import { HEDGE_BUGS } from "./hedges/bugs.ts";
import { RIGHTS_BUGS } from "./rights/bugs.ts";
import { RUN_BUGS } from "./runs/bugs.ts";

export interface Bug {
  readonly says: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const core = (name: string): string => `durable-objects/goal/core/${name}.ts`;
const LEASE = "shared/policy/lease.ts";

export const BUGS: Readonly<Record<string, Bug>> = {
  ...CLAIM_BUGS,
  ...GOAL_BUDGET_BUGS,
  ...HEDGE_BUGS,
  ...RIGHTS_BUGS,
  ...RUN_BUGS,
  "skip-attempt-check": {
    says: "a result of an older attempt settles the newer one",
    file: core("settle"),
    from: "|| tasks.attempt[task] !== attempt) rec.countLate",
    to: ") rec.countLate",
  },
  "settle-twice": {
    says: "a result settles a task that does not run",
    file: core("settle"),
    from: "task >= tasks.n || tasks.status[task] !== RUNNING ||",
    to: "task >= tasks.n ||",
  },
  "forget-counter": {
    says: "a status is left without being counted off",
    file: core("mutate"),
    from: "  state.counts[before]!--;\n",
    to: "",
  },
  "forget-family": {
    says: "a member's old status stays counted in its family",
    file: core("mutate"),
    from: "  family.counts[before]!--;\n",
    to: "",
  },
  "lose-last-row": {
    says: "the journal's last row is not read back",
    file: "test/sim/storage.ts",
    from: "for (const row of this.#journal)",
    to: "for (const row of this.#journal.slice(0, -1))",
  },
  "reply-before-commit": {
    says: "callers are answered before the commit",
    file: "test/sim/shell.ts",
    from: '      if (random.chance(faults.commitFails)) return crash(this, "commit failed");',
    to: '      asks.forEach(({ answer }, i) => answer(answers[i]!));\n      if (random.chance(faults.commitFails)) return crash(this, "commit failed");',
  },
  "send-before-commit": {
    says: "batches are sent before the commit",
    file: "test/sim/shell.ts",
    from: '      if (random.chance(faults.commitFails)) return crash(this, "commit failed");',
    to: '      for (const each of out.sends.splice(0)) this.#around.send(this, each);\n      if (random.chance(faults.commitFails)) return crash(this, "commit failed");',
  },
  "forget-reply": {
    says: "the reply is not stored with its effect",
    file: "test/sim/shell.ts",
    from: "if (id !== null && reply.ok) replies.push([id, text]);",
    to: "",
  },
  "repeat-lost-post": {
    says: "what must not be repeated is queued again when its executor is lost",
    file: core("settle"),
    from: "if (tasks.status[task] !== RUNNING || (tasks.flags[task]! & IDEMPOTENT) === 0) return;",
    to: "if (tasks.status[task] !== RUNNING) return;",
  },
  "repeat-timed-out-post": {
    says: "what must not be repeated is tried again after a timeout",
    file: core("settle"),
    from: 'return isIdempotent ? "repeatable" : "doubtful";',
    to: 'return "repeatable";',
  },
  "release-on-failure": {
    says: "a task is released though what it comes after failed",
    file: core("lifecycle"),
    from: "if ((tasks.flags[task]! & DEPENDENCY_FAILED) !== 0) {",
    to: "if (tasks.unmet[task]! > 0 && (tasks.flags[task]! & DEPENDENCY_FAILED) !== 0) {",
  },
  "release-too-early": {
    says: "a task is released when the first of its dependencies has ended",
    file: core("lifecycle"),
    from: "} else if (tasks.unmet[task] === 0) {",
    to: "} else {",
  },
  "ignore-pause": {
    says: "a paused goal goes on sending",
    file: core("dispatch"),
    from: '|| goal.phase !== "active" || isPaused(rec.state)) return;',
    to: '|| goal.phase !== "active") return;',
  },
  "forget-leases": {
    says: "leases never expire",
    file: core("tick"),
    from: "if (leaseUntilMs <= nowMs) expireLease",
    to: "if (leaseUntilMs < 0) expireLease",
  },
  "beyond-permits": {
    says: "one call more than the permits is started",
    file: core("dispatch"),
    from: "startable(lease, upstream.lanes + closing, rec.nowMs)",
    to: "startable(lease, upstream.lanes + closing - 1, rec.nowMs)",
  },
  "beyond-window": {
    says: "one task more than the window is sent",
    file: core("dispatch"),
    from: "windowOf(upstream, lease) - upstream.running, lease.starts",
    to: "windowOf(upstream, lease) - upstream.running + 1, lease.starts",
  },
  "outlive-lease": {
    says: "permits are used until the governor takes them back, and longer",
    file: LEASE,
    from: "grant.ttlMs * LEASE_USE",
    to: "grant.ttlMs * 1.2",
  },
  "take-void-grant": {
    says: "a grant is taken that answers an earlier report than the latest",
    file: LEASE,
    from: "if (grant.seq !== lease.seq) return false;",
    to: "if (grant.seq > lease.seq) return false;",
  },
  "take-older-grant": {
    says: "a grant that was overtaken is taken after the newer one",
    file: LEASE,
    from: "  if (!isLater) return false;\n",
    to: "",
  },
  "ignore-starts": {
    says: "more calls are started than were allowed to",
    file: core("dispatch"),
    from: "  lease.starts -= tasks.length;\n",
    to: "",
  },
  "keep-unused-starts": {
    says: "starts are used that a report has given back",
    file: LEASE,
    from: "  if (isCounted) lease.starts = 0;\n",
    to: "",
  },
  "blame-given-back": {
    says: "a task that an executor did not try has failed",
    file: core("settle"),
    from: 'if (head.outcome === "not_sent" && head.status === GIVEN_BACK_STATUS) return',
    to: 'if (head.outcome === "not_sent" && head.status === 1) return',
  },
  "ignore-governors-gate": {
    says: "calls start before the governor's gate opens",
    file: LEASE,
    from: "  if (nowMs < lease.gateUntilMs) return 0;\n",
    to: "",
  },
  "reuse-spoiled": {
    says: "the permit of a call that was refused is used again at once",
    file: core("admission"),
    from: 'if (verdict === "refused" || verdict === "unavailable") admission.lease.spoiled++;',
    to: "",
  },
  "forget-closing": {
    says: "a call that is being aborted counts as closed",
    file: core("recorder"),
    from: "    admissionOf(this.state, this.state.tasks.upstream[task]!).closing++;\n",
    to: "",
  },
  "blame-when-down": {
    says: "a failure counts against its task though the upstream is down",
    file: core("settle"),
    from: 'if (admission.lease.isOpen && verdict !== "answered") return',
    to: 'if (admission.lease.isOpen && verdict === "nothing") return',
  },
  "wait-when-back": {
    says: "backoffs go on though the upstream is back",
    file: core("admission"),
    from: "if (isBackingOff && tasks.upstream[task] === upstream) rec.release(task);",
    to: "if (isBackingOff && tasks.upstream[task] === upstream + 1) rec.release(task);",
  },
  "forget-retry-budget": {
    says: "every retry is made as soon as its backoff ends",
    file: core("admission"),
    from: "if (admission.retries >= 1) {",
    to: "if (admission.retries >= -1_000) {",
  },
  "call-resting-origin": {
    says: "origins that rest are called",
    file: core("dispatch"),
    from: "lease.origins, seed ^",
    to: "null, seed ^",
  },
  "miscount-demand": {
    says: "what was wanted stays wanted when it is done",
    file: core("mutate"),
    from: "  upstream.running--;\n  upstream.wanted[tasks.priority[task]!]!--;\n",
    to: "  upstream.running--;\n",
  },
  "leak-origin": {
    says: "a call to an origin counts as open for ever",
    file: core("hedges"),
    from: "  upstream.origins[batch.origin]!.open -= freed;\n",
    to: "",
  },
  "report-twice": {
    says: "what calls met is reported again and again",
    file: "shared/policy/sample.ts",
    from: "  Object.assign(sampler, newSampler());\n",
    to: "",
  },
  "forget-to-ask": {
    says: "a lease is not renewed",
    file: LEASE,
    from: "if (lease.isAsking) return null;",
    to: "if (lease.isAsking || lease.seq > 0) return null;",
  },
  "forget-to-write-deferral": {
    says: "that a task goes back into the queue is not in the journal",
    file: core("recorder"),
    from: 'this.#rows("tasks.deferred").push(task',
    to: "[].push.call([], task",
  },
  "ignore-gate": {
    says: "calls start before Retry-After allows them",
    file: core("dispatch"),
    from: "|| rec.nowMs < upstream.gateUntilMs) return false;",
    to: ") return false;",
  },
  "drop-timer": {
    says: "the end of a backoff sets no timer",
    file: core("mutate"),
    from: "  addTimer(state.timers, dueAtMs, task);\n",
    to: "",
  },
  "forget-timers-on-load": {
    says: "a snapshot is loaded without its timers",
    file: core("snapshot"),
    from: "  setTimers(state);\n  reckonAll(state);",
    to: "  reckonAll(state);",
  },
  "wake-past-ttl": {
    says: "the wake time leaves the timers out",
    file: core("wake"),
    from: "nextTimeMs(state.timers) ?? Number.MAX_SAFE_INTEGER",
    to: "Number.MAX_SAFE_INTEGER + 0 * (nextTimeMs(state.timers) ?? 0)",
  },
  "leak-lane": {
    says: "a lane is never given back",
    file: core("hedges"),
    from: "  upstream.lanes -= freed;\n",
    to: "",
  },
  "leave-children": {
    says: "a parent ends without its children",
    file: core("lifecycle"),
    from: "if (family === undefined || liveCount(family.counts) === 0) return;",
    to: "if (family === undefined || family.counts.length > 0) return;",
  },
  "decide-too-late": {
    says: "minSuccessful wants one more than it says",
    file: core("completion"),
    from: "if (succeeded >= rule.minSuccessful && ",
    to: "if (succeeded > rule.minSuccessful && ",
  },
  "forget-to-write-gate": {
    says: "a closed gate is not in the journal",
    file: core("recorder"),
    from: '    this.out.changes.push({ kind: "upstream.gated", upstream, untilMs });\n',
    to: "",
  },
};

let isPlanted = false;

/** Changes the module's text when it is loaded; call it before anything imports it. */
export function plant({ file, from, to }: Bug): void {
  registerHooks({
    load(url, context, next) {
      const loaded = next(url, context);
      if (!url.endsWith(`/${file}`)) return loaded;
      const source = typeof loaded.source === "string" ? loaded.source : new TextDecoder().decode(loaded.source ?? undefined);
      if (source.split(from).length !== 2) throw new Error(`the text that the bug changes must be in ${file} exactly once`);
      isPlanted = true;
      return { ...loaded, source: source.replace(from, () => to) };
    },
  });
}

/** A bug that is in no module that was loaded shows nothing. */
export function assertPlanted(): void {
  if (!isPlanted) throw new Error("the bug was not planted: its module was not loaded after it");
}
