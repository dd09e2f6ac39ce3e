/** Bugs for the world of accounts; see `../bugs.ts` for how they are planted. */
import type { Bug } from "../bugs.ts";

const CORE = "durable-objects/goal/core";
const ACCOUNT = "shared/policy/account.ts";

export const BUGS: Readonly<Record<string, Bug>> = {
  "settle-reservation-twice": {
    says: "a reservation stays open when it is settled",
    file: `${CORE}/budget.ts`,
    from: "      budget.reservations.delete(change.id);\n",
    to: "",
  },
  "refund-lost-attempt": {
    says: "an attempt that may have been made is released when it is lost",
    file: `${CORE}/reserve.ts`,
    from: "settle(state.budget.account, reserved, reserved);",
    to: "settle(state.budget.account, reserved, NOTHING);",
  },
  "refund-expired": {
    says: "a reservation that nobody settled in time is released",
    file: `${CORE}/reservations.ts`,
    from: 'if (untilMs <= rec.nowMs) note(rec, { kind: "budget.settled", id, used: amounts });',
    to: 'if (untilMs <= rec.nowMs) note(rec, { kind: "budget.settled", id, used: amounts.map(() => 0) });',
  },
  "grant-not-durable": {
    says: "a goal hears of a grant that is not written",
    file: "durable-objects/tenant/core/treasury.ts",
    from: "      this.#store.putGrant(goalId, totals);\n",
    to: "",
  },
  "grant-too-much": {
    says: "an account grants what it does not have",
    file: ACCOUNT,
    from: "if (need[d]! > paid + left) return child.granted;",
    to: "if (need[d]! > paid + left + 5) return child.granted;",
  },
  "top-up-twice": {
    says: "a top-up that is repeated is added again",
    file: "test/sim/budgets/node.ts",
    from: "if (key !== null && reply.ok) replies.set(key, text);",
    to: 'if (key !== null && reply.ok && command.kind !== "top-up") replies.set(key, text);',
  },
  "close-twice": {
    says: "a goal's last report that is repeated is charged again",
    file: "durable-objects/tenant/core/treasury.ts",
    from: "    if (this.#store.isClosed(goalId)) return;\n",
    to: "",
  },
  "keep-unspent": {
    says: "what a child has not spent does not flow back",
    file: ACCOUNT,
    from: "  for (let d = 0; d < DIMENSIONS.length; d++) account.held[d] = account.held[d]! - holdOf(child, d);\n  add(account.spent, spent);",
    to: "  add(account.spent, spent);",
  },
  "afford-each-alone": {
    says: "each task of a batch is looked at as if it were the only one",
    file: `${CORE}/afford.ts`,
    from: "      taken = next;\n",
    to: "",
  },
  "deltas-for-totals": {
    says: "what a child has spent is added up, though it is a total",
    file: ACCOUNT,
    from: "(child.spent[d] = Math.max(child.spent[d]!, total))",
    to: "(child.spent[d] = child.spent[d]! + total)",
  },
  "keep-reserved-at-the-end": {
    says: "reservations outlive their goal",
    file: `${CORE}/mutate.ts`,
    from: "  state.budget.reservations.clear();\n",
    to: "",
  },
};

/** Bugs of budgets for the world of a goal. */
export const GOAL_BUDGET_BUGS: Readonly<Record<string, Bug>> = {
  "start-without-budget": {
    says: "a task is started though it cannot be afforded",
    file: `${CORE}/dispatch.ts`,
    from: "if (allowance !== null && !allowance.take(task)) return picked;",
    to: "if (allowance !== null && !allowance.take(task) && picked.length > 5) return picked;",
  },
  "charge-what-was-not-sent": {
    says: "an attempt that did not reach the upstream stays charged, and the journal says otherwise",
    file: `${CORE}/recorder.ts`,
    from: "    correctUsage(this.state, task, difference);\n",
    to: "",
  },
  "wake-for-what-is-too-dear": {
    says: "an open gate wakes the goal for a task that it cannot afford",
    file: `${CORE}/wake.ts`,
    from: " || !canStart(state, upstream)) return;",
    to: " || upstream.queued === 0) return;",
  },
  "rest-too-early": {
    says: "a goal rests though what is under way may free what it needs",
    file: `${CORE}/afford.ts`,
    from: "heads.canGoOn ||= canGoOn(account.reserved);",
    to: "heads.canGoOn ||= canReserve(account, needs);",
  },
};
