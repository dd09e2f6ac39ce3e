/** Bugs that are planted in functions' tasks, to show that the checkers find them. */
import type { Bug } from "../bugs.ts";

const core = (name: string): string => `durable-objects/goal/core/${name}.ts`;

export const RUN_BUGS: Readonly<Record<string, Bug>> = {
  "run-without-budget": {
    says: "a function that could not afford a call is tried again though there is no more",
    file: core("run-state"),
    from: "> amount);",
    to: ">= amount);",
  },
  "forget-starved": {
    says: "that a function could not afford a call is not in the journal",
    file: core("recorder"),
    from: "    applyRuns(this.state, change);\n    this.out.changes.push(change);\n",
    to: "    applyRuns(this.state, change);\n",
  },
  "charge-reserve-of-run": {
    says: "what a run had set aside is charged, whatever its calls used of it",
    file: core("runs"),
    from: "  if (!isNothing(difference)) rec.correct(task, difference);\n",
    to: "",
  },
  "forget-drawn": {
    says: "what the calls of a run used of what was set aside for it is not charged",
    file: core("runs"),
    from: "minus(head.drawn ?? NOTHING, reserved)",
    to: "minus(NOTHING, reserved)",
  },
  "free-lost-reserve": {
    says: "what a run had set aside is free again when its executor is lost",
    file: core("settle"),
    from: "if (suspicion === 0 && !isNothing(charged))",
    to: "if ((suspicion === 0 || (tasks.flags[task]! & RUN) !== 0) && !isNothing(charged))",
  },
  "repeat-limit": {
    says: "a run that went beyond a limit is made again",
    file: core("runs"),
    from: "if (head.status === RUN_AGAIN_STATUS &&",
    to: "if (head.status >= 500 &&",
  },
  "run-what-was-deleted": {
    says: "functions that were deleted stay known",
    file: core("run-state"),
    from: "  versions.clear();\n",
    to: "",
  },
  "forget-used": {
    says: "what the calls of a run used is not in the journal",
    file: core("recorder"),
    from: '    this.#rows("runs.used").push(task, calls, tokens, costMicros);\n',
    to: "",
  },
  "count-lost-run": {
    says: "a run that its executor gives back counts as failed",
    file: core("runs"),
    from: 'if (head.outcome === "not_sent") return rec.lose(task, 0);',
    to: "",
  },
};
