/**
 * An escrow account: what is set aside cannot be spent twice (O'Neil, "The
 * escrow transactional method", 1986). A tenant has one, each goal has one, and
 * the account above funds the ones below with grants, so that nobody asks
 * upwards for a single call. All amounts are whole numbers. Grants and spending
 * are told as totals that only rise, so a message that is lost or repeated does
 * no harm. Pure, and it changes accounts in place.
 */
import { assert } from "../assert.ts";

export const DIMENSIONS = ["tasks", "calls", "tokens", "costMicros"] as const;
export type Dimension = (typeof DIMENSIONS)[number];

/** A number for each dimension, in their order. */
export type Amounts = readonly number[];
/** A bound for each dimension, in their order; null where there is none. */
export type Bounds = readonly (number | null)[];

export const TASKS = 0;
export const CALLS = 1;
export const TOKENS = 2;
export const COST = 3;
/** From here on dimensions are known only afterwards, and can be overrun. */
const METERED = TOKENS;

export const NOTHING: Amounts = [0, 0, 0, 0];
export const UNBOUNDED: Bounds = [null, null, null, null];

/** An account that this one funds. */
export interface ChildAccount {
  /** Total of its grants. */
  readonly granted: number[];
  /** Total of its spending, as it was last reported. */
  readonly spent: number[];
}

export interface Account {
  /** Its own limit. */
  limit: (number | null)[];
  /** Total of the grants from above; null where the account above sets no limit. */
  funds: (number | null)[];
  /** What was spent here, and by children that are closed. */
  readonly spent: number[];
  /** Set aside for what is under way. */
  readonly reserved: number[];
  readonly children: Map<string, ChildAccount>;
  /** Over the open children, what they were granted, or what they have spent where that is more. */
  readonly held: number[];
}

export function newAccount(limit: Bounds = UNBOUNDED, funds: Bounds = UNBOUNDED): Account {
  return { limit: [...limit], funds: [...funds], spent: [...NOTHING], reserved: [...NOTHING], children: new Map(), held: [...NOTHING] };
}

export const plus = (a: Amounts, b: Amounts): number[] => a.map((amount, d) => amount + b[d]!);
export const minus = (a: Amounts, b: Amounts): number[] => a.map((amount, d) => amount - b[d]!);
export const timesOf = (amounts: Amounts, count: number): Amounts => amounts.map((amount) => amount * count);
export const isNothing = (amounts: Amounts): boolean => amounts.every((amount) => amount === 0);

function add(sum: number[], amounts: Amounts): void {
  for (let d = 0; d < sum.length; d++) sum[d] = sum[d]! + amounts[d]!;
}

/** What spending and promises together must not exceed. */
function boundOf({ limit, funds }: Account, d: number): number | null {
  const [own, above] = [limit[d]!, funds[d]!];
  return own === null || above === null ? (own ?? above) : Math.min(own, above);
}

export function isBounded(account: Account): boolean {
  return DIMENSIONS.some((_, d) => boundOf(account, d) !== null);
}

/** Spent, reserved and granted: a limit cannot fall below it. */
export function committed({ spent, reserved, held }: Account, d: number): number {
  return spent[d]! + reserved[d]! + held[d]!;
}

/** What may still be reserved; below 0 where usage overran what was reserved for it. */
export function available(account: Account, d: number): number {
  const bound = boundOf(account, d);
  return bound === null ? Number.MAX_SAFE_INTEGER : bound - committed(account, d);
}

/** As `available`, up to what the account's own limit allows. */
export function availableOf(account: Account, d: number): number {
  const own = account.limit[d]!;
  return own === null ? Number.MAX_SAFE_INTEGER : own - committed(account, d);
}

/** An overrun stops everything, also what would use nothing of it: what it will use is known only afterwards. */
const fits = (amount: number, d: number, left: number): boolean => (amount === 0 ? d < METERED || left >= 0 : amount <= left);

/** Whether all of it can be reserved: all dimensions or nothing. `extra` is what is taken to be free besides. */
export function canReserve(account: Account, amounts: Amounts, extra: Amounts = NOTHING): boolean {
  return amounts.every((amount, d) => fits(amount, d, available(account, d) + extra[d]!));
}

/** Whether the account's own limit alone would allow it. Where it does, grants from above are what is missing. */
export function isWithinLimit(account: Account, amounts: Amounts, extra: Amounts = NOTHING): boolean {
  return amounts.every((amount, d) => fits(amount, d, availableOf(account, d) + extra[d]!));
}

/** Sets it aside. The caller has asked `canReserve`, or the account is not bounded. */
export function reserve(account: Account, amounts: Amounts): void {
  add(account.reserved, amounts);
}

/** What was reserved is over, and so much was used of it. More than was reserved is metered all the same. */
export function settle(account: Account, reserved: Amounts, used: Amounts): void {
  for (let d = 0; d < reserved.length; d++) {
    account.reserved[d] = account.reserved[d]! - reserved[d]!;
    assert(account.reserved[d]! >= 0, "no more is settled than was reserved");
  }
  add(account.spent, used);
}

export function release(account: Account, reserved: Amounts): void {
  settle(account, reserved, NOTHING);
}

/** Spends without a reserve: what is charged at once. */
export function spend(account: Account, amounts: Amounts): void {
  add(account.spent, amounts);
}

/** Why a limit cannot become what was asked for, and in which dimension. */
export interface LimitFault {
  readonly fault: "unlimited" | "committed" | "too large";
  readonly dimension: Dimension;
}

/** The limit after `changes` are added to it; below what is committed it cannot fall. */
export function limitAfter(account: Account, changes: Amounts, max: number): Bounds | LimitFault {
  const limit = [...account.limit];
  for (const [d, dimension] of DIMENSIONS.entries()) {
    const change = changes[d]!;
    if (change === 0) continue;
    const own = limit[d];
    if (own === undefined || own === null) return { fault: "unlimited", dimension };
    if (change < 0 && own + change < committed(account, d)) return { fault: "committed", dimension };
    if (own + change > max) return { fault: "too large", dimension };
    limit[d] = own + change;
  }
  return limit;
}

/** Takes the totals of grants from above. An older total that comes late changes nothing. */
export function takeFunds(account: Account, totals: Bounds): void {
  account.funds = account.funds.map((known, d) => {
    const total = totals[d]!;
    return known === null || total === null ? total : Math.max(known, total);
  });
}

/** What an account asks of the one above it, as totals of its grants. */
export interface FundRequest {
  /** Without this much it cannot go on. */
  readonly need: Amounts;
  /** What it could use now. At least `need`. */
  readonly want: Amounts;
}

/** A child's totals so far. */
function childOf(account: Account, key: string): ChildAccount {
  return account.children.get(key) ?? { granted: [...NOTHING], spent: [...NOTHING] };
}

const holdOf = ({ granted, spent }: ChildAccount, d: number): number => Math.max(granted[d]!, spent[d]!);

/**
 * What a child's grants would be in total after it asked. It gets what it wants
 * while there is plenty; near the end it gets its share of half of what is left
 * (guided self-scheduling), but no less than it needs. Where it cannot have
 * that in every dimension its totals stay as they are: the account is exhausted.
 */
export function grantFor(account: Account, key: string, { need, want }: FundRequest): Amounts {
  const child = childOf(account, key);
  const others = account.children.has(key) ? account.children.size : account.children.size + 1;
  const totals: number[] = [];
  for (let d = 0; d < DIMENSIONS.length; d++) {
    const granted = child.granted[d]!;
    // What the child has overrun is held already, so it costs nothing to grant it.
    const paid = holdOf(child, d);
    const left = boundOf(account, d) === null ? 0 : Math.max(0, available(account, d));
    if (boundOf(account, d) === null) {
      totals.push(granted);
      continue;
    }
    if (need[d]! > paid + left) return child.granted;
    const fair = paid + Math.floor(left / (2 * others));
    totals.push(Math.max(granted, need[d]!, Math.min(want[d]!, fair)));
  }
  return totals;
}

/** Carries out a grant that `grantFor` decided. Totals that are lower than the child's change nothing. */
export function fundChild(account: Account, key: string, totals: Amounts): void {
  moveChild(account, key, (child) => totals.forEach((total, d) => (child.granted[d] = Math.max(child.granted[d]!, total))));
}

/** Takes a child's report of what it has spent in total. */
export function childSpent(account: Account, key: string, totals: Amounts): void {
  moveChild(account, key, (child) => totals.forEach((total, d) => (child.spent[d] = Math.max(child.spent[d]!, total))));
}

function moveChild(account: Account, key: string, move: (child: ChildAccount) => void): void {
  const child = childOf(account, key);
  const before = DIMENSIONS.map((_, d) => holdOf(child, d));
  move(child);
  account.children.set(key, child);
  for (let d = 0; d < before.length; d++) account.held[d] = account.held[d]! + holdOf(child, d) - before[d]!;
}

/** What the child was told that it may use, for an answer: null where this account sets no bound. */
export function fundsOf(account: Account, key: string): Bounds {
  const { granted } = childOf(account, key);
  return granted.map((total, d) => (boundOf(account, d) === null ? null : total));
}

/** The child has ended: what it has not spent flows back. False where there is no such child, or not any more. */
export function closeChild(account: Account, key: string, spent: Amounts): boolean {
  const child = account.children.get(key);
  if (child === undefined) return false;
  for (let d = 0; d < DIMENSIONS.length; d++) account.held[d] = account.held[d]! - holdOf(child, d);
  add(account.spent, spent);
  account.children.delete(key);
  return true;
}

/** Everything that was spent here and below, as far as it is known. */
export function spentInAll(account: Account): number[] {
  const total = [...account.spent];
  for (const { spent } of account.children.values()) add(total, spent);
  return total;
}

/** Reserved here, and granted below but not yet spent. */
export function reservedInAll(account: Account): number[] {
  const own = plus(account.reserved, account.held);
  for (const { spent } of account.children.values()) add(own, minus(NOTHING, spent));
  return own;
}

/** Named amounts as they are on the wire; those that are null or left out are left out. */
export function named(amounts: Bounds): Partial<Record<Dimension, number>> {
  return Object.fromEntries(DIMENSIONS.flatMap((name, d) => (amounts[d] === null ? [] : [[name, amounts[d]]])));
}

export function amountsFrom(given: Partial<Record<Dimension, number | undefined>>): number[] {
  return DIMENSIONS.map((name) => given[name] ?? 0);
}

/** A bound for each dimension that is named. */
export function boundsFrom(given: Partial<Record<Dimension, number | undefined>>): (number | null)[] {
  return DIMENSIONS.map((name) => given[name] ?? null);
}

/** An account as plain data. */
export interface AccountImage extends Omit<Account, "children"> {
  readonly children: readonly (readonly [string, ChildAccount])[];
}

export const imageOf = (account: Account): AccountImage => ({ ...account, children: [...account.children] });
export const accountFrom = (image: AccountImage): Account => ({ ...image, children: new Map(image.children) });
