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
    from: "settle(state.budget.account, amounts, amounts);",
    to: "settle(state.budget.account, amounts, NOTHING);",
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
