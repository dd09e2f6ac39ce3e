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
};
