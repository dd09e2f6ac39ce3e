/**
 * What really happened, kept apart from what the accounts say, and the rules
 * that hold between the two in every state and at the end.
 */
import { CALLS, committed, DIMENSIONS, TOKENS } from "../../../shared/policy/account.ts";
import { must } from "../violation.ts";
import type { Node } from "./node.ts";
import type { TenantNode } from "./tenant.ts";

/** Calls that were made and tokens that were used, and by how much tokens were more than was reserved for them. */
interface Used {
  calls: number;
  tokens: number;
  overrun: number;
}

export class Ledger {
  readonly used: Record<string, Used> = { goal: { calls: 0, tokens: 0, overrun: 0 }, sub: { calls: 0, tokens: 0, overrun: 0 } };
  /** By node: the limit that its callers have been promised, and what of it nobody has been answered yet. */
  readonly limits: Record<string, { calls: number | null; pending: number }> = {};

  spend(node: string, calls: number, tokens: number, reserved: number): void {
    const used = this.used[node]!;
    used.calls += calls;
    used.tokens += tokens;
    used.overrun += Math.max(0, tokens - reserved);
  }

  total(): Used {
    const { goal, sub } = this.used;
    return { calls: goal!.calls + sub!.calls, tokens: goal!.tokens + sub!.tokens, overrun: goal!.overrun + sub!.overrun };
  }

  /** After every turn. */
  check(tenant: TenantNode, goal: Node, sub: Node): void {
    const { limit } = tenant.disk;
    const total = this.total();
    const within = (amount: number, bound: number | null, what: string): void =>
      must(bound === null || amount <= bound, "nothing is overspent", () => `${what}: ${amount} of ${bound}`);
    within(total.calls, limit[CALLS]!, "calls of the tenant");
    within(total.tokens - total.overrun, limit[TOKENS]!, "tokens of the tenant");
    const promised = (node: string): number | null => {
      const { calls, pending } = this.limits[node]!;
      return calls === null ? null : calls + pending;
    };
    within(total.calls, promised("goal"), "calls of the goal");
    within(this.used["sub"]!.calls, promised("sub"), "calls of the sub-goal");
    for (const node of [goal, sub]) this.#account(node);
    this.#escrow(tenant, goal, sub);
  }

  /** What was made is charged or set aside, and no account has promised more of what is exact than it has. */
  #account({ name, state }: Node): void {
    const { account } = state.budget;
    const charged = account.spent[CALLS]! + account.reserved[CALLS]!;
    const own = this.used[name]!.calls;
    must(charged >= own, "every call that was made is charged", () => `${name}: ${own} made, ${charged} charged or reserved`);
    const tokens = account.spent[TOKENS]! + account.reserved[TOKENS]!;
    const within = this.used[name]!.tokens - this.used[name]!.overrun;
    must(tokens >= within, "what was used within its reserve is charged", () => `${name}: ${within} used, ${tokens} charged or reserved`);
    for (const bound of [account.limit[CALLS]!, account.funds[CALLS]!]) {
      const all = committed(account, CALLS);
      must(bound === null || all <= bound, "calls are never promised twice", () => `${name}: ${all} of ${bound}`);
    }
    for (const d of DIMENSIONS.keys()) {
      let held = 0;
      for (const { granted, spent } of account.children.values()) held += Math.max(granted[d]!, spent[d]!);
      must(account.held[d] === held, "what is held is what children have", () => `${name}: ${account.held[d]}, recounted ${held}`);
      must(account.reserved[d]! >= 0, "nothing is settled twice", () => `${name}: ${account.reserved[d]} ${DIMENSIONS[d]}`);
    }
  }

  /** No account believes to have more than is held for it above. */
  #escrow(tenant: TenantNode, goal: Node, sub: Node): void {
    const pairs = [
      [goal, tenant.disk.isClosed(goal.name) ? null : tenant.disk.granted.get(goal.name)],
      [sub, goal.disk.closed.has(sub.name) ? null : goal.state.budget.account.children.get(sub.name)?.granted],
    ] as const;
    for (const [{ name, state }, granted] of pairs) {
      if (granted === null) continue;
      for (const d of DIMENSIONS.keys()) {
        const funds = state.budget.account.funds[d]!;
        must(
          funds === null || funds <= (granted?.[d] ?? 0),
          "a grant is durable before it is told",
          () => `${name}: ${funds} of ${granted?.[d]}`,
        );
      }
    }
  }

  /** When both goals have ended and everything has been said. */
  end(tenant: TenantNode, goal: Node, sub: Node): void {
    for (const { name, state } of [goal, sub]) {
      const { account, reservations } = state.budget;
      must(reservations.size === 0 && account.reserved.every((amount) => amount === 0), "nothing stays reserved after the end", () => name);
      must(account.children.size === 0 && account.held.every((amount) => amount === 0), "every child is closed", () => name);
      const promised = this.limits[name]!;
      must(
        account.limit[CALLS] === promised.calls,
        "a top-up adds once",
        () => `${name}: ${account.limit[CALLS]}, promised ${promised.calls}`,
      );
    }
    must(tenant.disk.granted.size === 0, "every grant is closed", () => String(tenant.disk.granted.size));
    const { spent } = goal.state.budget.account;
    must(
      tenant.disk.spent.every((amount, d) => amount === spent[d]),
      "what was spent flows up once, and the rest flows back",
      () => `${String(tenant.disk.spent)}, of the goal ${String(spent)}`,
    );
    const total = this.total();
    must(
      spent[CALLS]! >= total.calls,
      "every call that was made is charged in the end",
      () => `${total.calls} made, ${spent[CALLS]} charged`,
    );
  }
}
