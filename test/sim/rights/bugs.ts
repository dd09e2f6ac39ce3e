/** Bugs that are planted in policies, approvals and epochs, to show that the checkers find them. */
import type { Bug } from "../bugs.ts";

const core = (name: string): string => `durable-objects/goal/core/${name}.ts`;

export const RIGHTS_BUGS: Readonly<Record<string, Bug>> = {
  "skip-approval": {
    says: "a task that needs approval does not wait for it",
    file: core("place"),
    from: "if ((flags & (NEEDS_APPROVAL | APPROVED)) === NEEDS_APPROVAL) return",
    to: "if ((flags & (NEEDS_APPROVAL | APPROVED)) < 0) return",
  },
  "skip-recheck": {
    says: "a task is not looked at again though the tenant's policy has changed",
    file: core("approval"),
    from: "if (rights.recheckBelow === 0) return picked;",
    to: "if (rights.recheckBelow >= 0) return picked;",
  },
  "recheck-one-offer-less": {
    says: "the latest offer from before a change is not looked at again",
    file: core("rights"),
    from: "policy === null ? 0 : state.nextOffer;",
    to: "policy === null ? 0 : state.nextOffer - 1;",
  },
  "approve-what-was-denied": {
    says: "a task that was denied goes on",
    file: core("approval"),
    from: "else finish(rec, { task, status: FAILED, code: DENIED });",
    to: "else rec.approve(task);",
  },
  "hear-revoked-token": {
    says: "a token of an earlier epoch is heard",
    file: core("rights"),
    from: "|| epoch === rights.epoch) return null;",
    to: "|| epoch <= rights.epoch) return null;",
  },
  "forget-to-write-epoch": {
    says: "a revocation is not in the journal",
    file: core("recorder"),
    from: "    applyRights(this.state, change);\n    this.out.changes.push(change);\n",
    to: "    applyRights(this.state, change);\n",
  },
  "park-in-the-queue": {
    says: "a task that waits for approval keeps its place in the queue, and has two when it comes back",
    file: core("rights"),
    from: "  queue.items.splice(queue.items.indexOf(task, queue.head), 1);\n",
    to: "",
  },
  "forget-token": {
    says: "the check is made without the token's own policies",
    file: core("step"),
    from: "return submitTo(rec, command, bearer.policies);",
    to: "return submitTo(rec, command, []);",
  },
};
