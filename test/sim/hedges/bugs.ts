/** Bugs that are planted in second tries, to show that the checkers find them. */
import type { Bug } from "../bugs.ts";

const core = (name: string): string => `durable-objects/goal/core/${name}.ts`;

export const HEDGE_BUGS: Readonly<Record<string, Bug>> = {
  "hedge-post": {
    says: "what is merely sent once more after a failure is open twice at once",
    file: core("hedges"),
    from: "(tasks.flags[task]! & (HEDGEABLE | LOCKED)) === HEDGEABLE",
    to: "(tasks.flags[task]! & LOCKED) === 0",
  },
  "hedge-for-nothing": {
    says: "a second try is charged to nobody",
    file: core("recorder"),
    from: "    hedgeTask(this.state, task, beaten.isFirst, beaten.startedAtMs, endedAtMs);\n",
    to: "",
  },
  "free-unheard-hedge": {
    says: "the permit of a second try that may still be made is given away",
    file: core("hedges"),
    from: "(hedges.left > 0 || hedges.isUnheard === true) ? 1 : 0",
    to: "hedges.left > 0 ? 1 : 0",
  },
  "forget-unheard-hedge": {
    says: "a second try that nobody heard of is charged to nobody",
    file: core("hedges"),
    from: "if (isHedgeable(state, task)) chargeHedge(state, task);",
    to: "if (isHedgeable(state, task) && task < 0) chargeHedge(state, task);",
  },
  "keep-hedges-reserved": {
    says: "what was set aside for second tries stays so",
    file: core("hedges"),
    from: "    release(state.budget.account, hedges.reserve);\n",
    to: "",
  },
  "hedge-without-permit": {
    says: "a second try at a batch's end has no permit of its own",
    file: core("hedges"),
    from: "Math.min(lanes, left + spare)",
    to: "Math.min(lanes, left)",
  },
  "hedge-without-end": {
    says: "hedges are not taken out of their bucket",
    file: core("hedges"),
    from: "  admission.hedges -= left;\n",
    to: "",
  },
  "hedge-beyond-starts": {
    says: "second tries are no starts",
    file: core("hedges"),
    from: "  lease.starts -= left;\n",
    to: "",
  },
  "forget-to-write-hedge": {
    says: "that an attempt was tried twice is not in the journal",
    file: core("recorder"),
    from: 'this.#rows("tasks.hedged").push(task',
    to: "[].push.call([], task",
  },
  "back-up-again": {
    says: "a straggler is run again as long as it is late",
    file: core("stragglers"),
    from: "isHedgeable(state, task) && !backups.has(task)",
    to: "isHedgeable(state, task)",
  },
  "back-up-post": {
    says: "what must not be open twice is run again when it is late",
    file: core("stragglers"),
    from: "isHedgeable(state, task) && !backups.has(task)",
    to: "!backups.has(task)",
  },
  "back-up-for-nothing": {
    says: "a backup is charged to nobody",
    file: core("backups"),
    from: "  settle(state.budget.account, backup.reserve, backup.reserve);\n  countUsage(state, task, backup.reserve);\n",
    to: "  release(state.budget.account, backup.reserve);\n",
  },
  "back-up-too-early": {
    says: "calls are run again whose results may be on their way",
    file: core("stragglers"),
    from: "heardAtMs(batch) + afterMs + BACKUP_LAG_MS",
    to: "heardAtMs(batch) + BACKUP_LAG_MS",
  },
  "let-the-beaten-run": {
    says: "when a straggler has been beaten its call goes on",
    file: core("recorder"),
    from: "if (backup.failed !== loser)",
    to: "if (backup.failed === loser)",
  },
  "back-up-without-permit": {
    says: "a backup is started though no permit is to spare",
    file: core("stragglers"),
    from: "startable(lease, upstream.lanes + closing, nowMs) < 1",
    to: "startable(lease, upstream.lanes + closing - 1, nowMs) < 1",
  },
  "fail-with-the-first": {
    says: "the first failure of two tries is the attempt's",
    file: core("settle"),
    from: "if (isDecisive(outcome, status) || (backup.failed !== null && backup.failed !== by))",
    to: "if (by !== null)",
  },
  "forget-to-write-backup": {
    says: "that a call is run again is not in the journal",
    file: core("recorder"),
    from: "    applyBackups(this.state, change);\n    this.out.changes.push(change);\n    const",
    to: "    applyBackups(this.state, change);\n    const",
  },
  "forget-backups-on-load": {
    says: "a snapshot is loaded without the backups that were under way",
    file: core("snapshot"),
    from: "    backups: new Map(meta.backups),\n",
    to: "",
  },
};
