/** The arithmetic of escrow accounts: random trees of three levels, and each rule by example. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Account,
  accountFrom,
  amountsFrom,
  available,
  availableOf,
  CALLS,
  canReserve,
  childSpent,
  closeChild,
  committed,
  COST,
  DIMENSIONS,
  fundChild,
  fundsOf,
  grantFor,
  imageOf,
  isBounded,
  isNothing,
  isWithinLimit,
  limitAfter,
  minus,
  named,
  newAccount,
  NOTHING,
  plus,
  release,
  reserve,
  reservedInAll,
  settle,
  spend,
  spentInAll,
  takeFunds,
  TASKS,
  TOKENS,
  UNBOUNDED,
} from "../../shared/policy/account.ts";

const LIMIT = [100, 100, 100, 100];
const MAX = 1_000_000;
const CALLS_ONLY = (calls: number): number[] => [0, calls, 0, 0];

const vector = fc.tuple(fc.constant(0), fc.nat(20), fc.nat(20), fc.nat(20));
const operation = fc.oneof(
  fc.record({ op: fc.constant("ask" as const), child: fc.nat(2), need: vector, extra: vector, isLost: fc.boolean() }),
  fc.record({ op: fc.constant("reserve" as const), child: fc.nat(2), id: fc.nat(20), amounts: vector }),
  fc.record({ op: fc.constant("settle" as const), child: fc.nat(2), id: fc.nat(20), share: fc.nat(100) }),
  fc.record({ op: fc.constant("release" as const), child: fc.nat(2), id: fc.nat(20) }),
  fc.record({ op: fc.constant("report" as const), child: fc.nat(2) }),
  fc.record({ op: fc.constant("close" as const), child: fc.nat(2) }),
);

interface Child {
  key: string;
  account: Account;
  open: Map<number, readonly number[]>;
}

/** A goal whose account above bounds everything, with nothing yet. */
const child = (generation: number, n: number): Child => ({
  key: `${n}.${generation}`,
  account: newAccount(UNBOUNDED, NOTHING),
  open: new Map(),
});

function check(root: Account, children: readonly Child[]): void {
  DIMENSIONS.forEach((name, d) => {
    expect(available(root, d), name).toBeGreaterThanOrEqual(0);
    let held = 0;
    for (const { account, key } of children) {
      expect(available(account, d), name).toBeGreaterThanOrEqual(0);
      const granted = root.children.get(key)?.granted[d] ?? 0;
      // What the child believes to have is never more than what is held for it above.
      expect(account.funds[d]!, name).toBeLessThanOrEqual(granted);
      held += granted;
    }
    expect(root.held[d], name).toBe(held);
    const spent = children.reduce((sum, { account }) => sum + account.spent[d]! + account.reserved[d]!, root.spent[d]!);
    expect(spent, name).toBeLessThanOrEqual(LIMIT[d]!);
  });
}

test("random grants, reserves, settles, releases, reports and ends never spend more than the limit, and lose nothing", () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 200, size: "max" }), (operations) => {
      const root = newAccount(LIMIT);
      const children = [0, 1, 2].map((n) => child(0, n));
      operations.forEach((step, n) => {
        const each = children[step.child]!;
        const { account, key, open } = each;
        if (step.op === "ask") {
          const need = account.funds.map((_, d) => committed(account, d) + step.need[d]!);
          fundChild(root, key, grantFor(root, key, { need, want: plus(need, step.extra) }));
          if (!step.isLost) takeFunds(account, fundsOf(root, key));
        } else if (step.op === "reserve" && !open.has(step.id) && canReserve(account, step.amounts)) {
          reserve(account, step.amounts);
          open.set(step.id, step.amounts);
        } else if (step.op === "settle" && open.has(step.id)) {
          const reserved = open.get(step.id)!;
          settle(
            account,
            reserved,
            reserved.map((amount) => Math.floor((amount * step.share) / 100)),
          );
          open.delete(step.id);
        } else if (step.op === "release" && open.has(step.id)) {
          release(account, open.get(step.id)!);
          open.delete(step.id);
        } else if (step.op === "report" && root.children.has(key)) childSpent(root, key, spentInAll(account));
        else if (step.op === "close") {
          for (const amounts of open.values()) settle(account, amounts, amounts);
          const before = DIMENSIONS.map((_, d) => available(root, d));
          const granted = root.children.get(key)?.granted ?? NOTHING;
          closeChild(root, key, account.spent);
          DIMENSIONS.forEach((_, d) => expect(available(root, d)).toBe(before[d]! + granted[d]! - account.spent[d]!));
          // A repeated end finds nothing to close.
          expect(closeChild(root, key, account.spent)).toBe(false);
          children[step.child] = child(n + 1, step.child);
        }
        check(root, children);
        expect(accountFrom(JSON.parse(JSON.stringify(imageOf(root))) as ReturnType<typeof imageOf>)).toEqual(root);
      });
    }),
    { numRuns: 100 },
  );
});

describe("a reserve", () => {
  test("takes all dimensions or nothing", () => {
    const account = newAccount([null, 2, 100, null]);
    expect(canReserve(account, [0, 1, 101, 0])).toBe(false);
    expect(canReserve(account, [0, 1, 100, 1e12])).toBe(true);
    reserve(account, [0, 1, 100, 0]);
    expect(canReserve(account, [0, 1, 0, 0])).toBe(true);
    expect(canReserve(account, [0, 1, 1, 0])).toBe(false);
    expect(canReserve(account, [0, 2, 1, 0], [0, 1, 100, 0])).toBe(true);
  });

  test("that was overrun is metered, and stops what would use nothing of it too", () => {
    const account = newAccount([null, 10, 100, null]);
    reserve(account, [0, 1, 10, 0]);
    settle(account, [0, 1, 10, 0], [0, 1, 130, 0]);
    expect(available(account, TOKENS)).toBe(-30);
    expect(canReserve(account, CALLS_ONLY(1))).toBe(false);
  });

  test("of calls asks nothing of tasks that are used up", () => {
    const account = newAccount([3, 10, null, null]);
    spend(account, [3, 0, 0, 0]);
    expect(canReserve(account, CALLS_ONLY(1))).toBe(true);
    expect(canReserve(account, [1, 0, 0, 0])).toBe(false);
  });

  test("is never released twice", () => {
    const account = newAccount([null, 2, null, null]);
    reserve(account, CALLS_ONLY(1));
    release(account, CALLS_ONLY(1));
    expect(() => release(account, CALLS_ONLY(1))).toThrow("no more is settled than was reserved");
  });
});

describe("a limit", () => {
  test("rises, and falls to what is committed and no further", () => {
    const account = newAccount([null, 10, null, null]);
    reserve(account, CALLS_ONLY(3));
    spend(account, CALLS_ONLY(2));
    expect(limitAfter(account, CALLS_ONLY(5), MAX)).toEqual([null, 15, null, null]);
    expect(limitAfter(account, CALLS_ONLY(-5), MAX)).toEqual([null, 5, null, null]);
    expect(limitAfter(account, CALLS_ONLY(-6), MAX)).toEqual({ fault: "committed", dimension: "calls" });
    expect(limitAfter(account, [0, 0, 0, 1], MAX)).toEqual({ fault: "unlimited", dimension: "costMicros" });
    expect(limitAfter(account, CALLS_ONLY(MAX), MAX)).toEqual({ fault: "too large", dimension: "calls" });
  });

  test("of its own is told apart from the grants from above", () => {
    const account = newAccount([null, 10, null, null], [null, 4, null, null]);
    expect(isBounded(account)).toBe(true);
    expect(isBounded(newAccount())).toBe(false);
    expect([available(account, 1), availableOf(account, 1)]).toEqual([4, 10]);
    expect([canReserve(account, CALLS_ONLY(5)), isWithinLimit(account, CALLS_ONLY(5)), isWithinLimit(account, CALLS_ONLY(11))]).toEqual([
      false,
      true,
      false,
    ]);
  });
});

describe("a grant", () => {
  const ask = (root: Account, key: string, need: number, want: number): number => {
    fundChild(root, key, grantFor(root, key, { need: CALLS_ONLY(need), want: CALLS_ONLY(want) }));
    return root.children.get(key)!.granted[1]!;
  };

  test("is what is wanted while there is plenty, and a share of half of what is left near the end, down to what is needed", () => {
    const root = newAccount([null, 1_000, null, null]);
    expect(ask(root, "a", 1, 200)).toBe(200);
    expect(ask(root, "b", 1, 800)).toBe(200);
    expect(ask(root, "a", 201, 1_000)).toBe(350);
    expect(ask(root, "b", 640, 640)).toBe(640);
    // Ten are left: no more than asked, and no less than needed.
    expect(ask(root, "a", 361, 361)).toBe(350);
    expect(ask(root, "a", 360, 360)).toBe(360);
    expect(available(root, CALLS)).toBe(0);
  });

  test("is the same however often it is asked for", () => {
    const root = newAccount([null, 1_000, null, null]);
    for (let i = 0; i < 50; i++) expect(ask(root, "a", 100, 100)).toBe(100);
    fundChild(root, "a", CALLS_ONLY(50));
    expect(root.held[CALLS]).toBe(100);
  });

  test("is bounded where the account above is", () => {
    const root = newAccount([null, 1_000, null, null]);
    ask(root, "a", 100, 100);
    expect(fundsOf(root, "a")).toEqual([null, 100, null, null]);
  });

  test("covers what a child has overrun, which is held anyway", () => {
    const root = newAccount([null, null, null, 100]);
    const costs = (micros: number): number[] => [0, 0, 0, micros];
    fundChild(root, "a", grantFor(root, "a", { need: costs(50), want: costs(50) }));
    childSpent(root, "a", costs(130));
    expect(available(root, COST)).toBe(-30);
    expect([spentInAll(root)[COST], reservedInAll(root)[COST]]).toEqual([130, 0]);
    childSpent(root, "a", costs(10));
    expect(root.held[COST]).toBe(130);
    closeChild(root, "a", costs(130));
    expect(root.spent[COST]).toBe(130);
  });

  test("of a late message is no less than was known", () => {
    const account = newAccount(UNBOUNDED, NOTHING);
    takeFunds(account, [null, 10, 0, 0]);
    takeFunds(account, [5, 4, 0, 0]);
    expect(account.funds).toEqual([5, 10, 0, 0]);
    expect(account.funds[TASKS]).toBe(5);
  });
});

test("amounts have names on the wire", () => {
  expect(amountsFrom({ calls: 3, costMicros: 4 })).toEqual([0, 3, 0, 4]);
  expect(named([null, 3, 0, null])).toEqual({ calls: 3, tokens: 0 });
  expect([isNothing(NOTHING), isNothing(CALLS_ONLY(1)), minus(CALLS_ONLY(3), CALLS_ONLY(1))]).toEqual([true, false, CALLS_ONLY(2)]);
});
