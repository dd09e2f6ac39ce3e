/**
 * Tabs: what the goal's gate holds of its budget, for calls that functions make
 * while they run. A tab is one reservation that is drawn from and filled up
 * again and again, many calls a message. Its holder says each time what it has
 * spent in all and what it still holds, so a message that is lost or repeated
 * does no harm. A holder that says nothing any more has spent all that it held.
 */
import {
  type Account,
  type Amounts,
  canReserve,
  isNothing,
  minus,
  NOTHING,
  plus,
  reserve,
  settle,
} from "../../../shared/policy/account.ts";
import { TAB_MS } from "../../../shared/limits.ts";

/** What one life of a gate holds, and what it has spent in all. */
export interface Tab {
  readonly left: Amounts;
  readonly used: Amounts;
  /** Without a word by then, all that is left is charged. */
  readonly untilMs: number;
}

export type TabChange =
  | { readonly kind: "budget.tab"; readonly life: string; readonly left: Amounts; readonly used: Amounts; readonly untilMs: number }
  | { readonly kind: "budget.tab-closed"; readonly life: string };

interface Tabbed {
  readonly account: Account;
  readonly tabs: Map<string, Tab>;
}

const EMPTY: Tab = { left: NOTHING, used: NOTHING, untilMs: 0 };

export function applyTab({ account, tabs }: Tabbed, change: TabChange): void {
  const before = tabs.get(change.life) ?? EMPTY;
  if (change.kind === "budget.tab-closed") {
    settle(account, before.left, before.left);
    tabs.delete(change.life);
    return;
  }
  const { life, left, used, untilMs } = change;
  settle(account, before.left, minus(used, before.used));
  reserve(account, left);
  tabs.set(life, { left, used, untilMs });
}

export interface DrawTab {
  readonly kind: "tab";
  readonly life: string;
  readonly isNew: boolean;
  /** Spent so far in all. */
  readonly used: Amounts;
  /** Held now. */
  readonly left: Amounts;
  readonly wants: readonly { readonly amounts: Amounts; readonly need: number; readonly spare: number }[];
}

export interface Drawn {
  /** How often of each; null where there is no such tab: what it held was charged when it ended. */
  readonly granted: readonly number[] | null;
  readonly isTight: boolean;
}

/** Settles what was spent, and grants what there is enough for, in order. `isOver`: the goal has ended, and grants nothing. */
export function drawTab(
  { account, tabs }: Tabbed,
  { life, isNew, left, used, wants }: DrawTab,
  isOver: boolean,
  nowMs: number,
): [Drawn, readonly TabChange[]] {
  const before = tabs.get(life);
  if (before === undefined && isOver) return [{ granted: wants.map(() => 0), isTight: false }, []];
  if (before === undefined && !isNew) return [{ granted: null, isTight: false }, []];
  const { left: held, used: spent } = before ?? EMPTY;
  // Nobody gives back what he never had, or takes back what he has said to be spent.
  let now: Amounts = left.map((amount, d) => Math.min(amount, held[d]!));
  const total = used.map((amount, d) => Math.max(amount, spent[d]!));
  const freed = minus(held, minus(total, spent));
  let isTight = false;
  const granted = wants.map(({ amounts, need, spare }) => {
    const most = isOver ? 0 : need + spare;
    let times = 0;
    while (times < most && canReserve(account, plus(now, amounts), freed)) {
      now = plus(now, amounts);
      times++;
    }
    isTight ||= times < need + spare;
    // Where there is little, nobody lays in a stock.
    if (isTight) for (; times > need; times--) now = minus(now, amounts);
    return times;
  });
  const change: TabChange = { kind: "budget.tab", life, left: now, used: total, untilMs: nowMs + TAB_MS };
  // What a goal has cost is settled when nobody holds anything of it any more.
  const isSettled = isOver && isNothing(now);
  return [{ granted, isTight }, isSettled ? [change, { kind: "budget.tab-closed", life }] : [change]];
}

/** The goal ends. Gates that hold something still give it back, and are waited for. */
export function endTabs({ account, tabs }: Tabbed, areKept: boolean): void {
  for (const [life, { left }] of tabs) {
    if (areKept && !isNothing(left)) continue;
    settle(account, left, left);
    tabs.delete(life);
  }
}

/** The tabs whose holders have said nothing for too long. */
export function* overdueTabs({ tabs }: Tabbed, nowMs: number): Iterable<TabChange> {
  for (const [life, { untilMs }] of tabs) if (untilMs <= nowMs) yield { kind: "budget.tab-closed", life };
}
