/** Bugs of goals inside goals, planted to show that the checkers would find them. */
import type { Bug } from "../bugs.ts";

const core = (name: string): string => `durable-objects/goal/core/${name}.ts`;

export const BUGS: Readonly<Record<string, Bug>> = {
  "share-a-goal": {
    says: "two tasks derive one goal",
    file: core("subgoals"),
    from: "subGoalIdOf(state.goal!.id, task)",
    to: "subGoalIdOf(state.goal!.id, task >> 1)",
  },
  "ignore-report-number": {
    says: "an older report replaces a newer one",
    file: core("subgoals"),
    from: " || report.number <= subgoal.heard) return;",
    to: ") return;",
  },
  "add-up-reports": {
    says: "each report is added to the one before",
    file: core("subgoals"),
    from: "kin.counts[i]! + count - subgoal.counts[i]!",
    to: "kin.counts[i]! + count",
  },
  "tell-once": {
    says: "an order that got no answer is not sent again",
    file: core("subgoals"),
    from: "  const failures = letter.failures + 1;\n",
    to: "  state.kin.owed.delete(task);\n  const failures = letter.failures + 1;\n",
  },
  "report-once": {
    says: "a report that got no answer is not made again",
    file: core("upward"),
    from: "  const failures = mail.report.failures + 1;\n",
    to: "  mail.acknowledged = state.kin.told?.number ?? 0;\n  const failures = mail.report.failures + 1;\n",
  },
  "forget-intents": {
    says: "intents are not in the journal",
    file: core("subgoals"),
    from: '  note(rec, { kind: "subgoals.begun", atMs: rec.nowMs, tasks, goalIds });',
    to: '  applySubgoals(rec.state, { kind: "subgoals.begun", atMs: rec.nowMs, tasks, goalIds });',
  },
  "stop-what-is-not-there": {
    says: "an order to stop makes no goal that is not there, and counts as done",
    file: core("relatives"),
    from: "    if (birth === null) return",
    to: "    if (birth === null || order.stop !== null) return",
  },
  "end-too-early": {
    says: "a report is the last one though something lives below",
    file: core("kin"),
    from: 'return goal!.phase !== "active" && kin.open.size === 0 &&',
    to: 'return goal!.phase !== "active" && kin.open.size >= 0 &&',
  },
  "forget-news-of-funds": {
    says: "an answer that there is nothing counts, though it was overtaken by the news that there is more",
    file: core("reservations"),
    from: "  else if (!hasNews) funding.dueAtMs",
    to: "  else funding.dueAtMs",
  },
  "keep-what-was-not-spent": {
    says: "what an ended sub-goal has not spent does not flow back to the goal above",
    file: core("subgoals"),
    from: "  closeChildOf(rec, String(task), report.spent);\n  forget(rec, task);\n",
    to: "  forget(rec, task);\n",
  },
};
