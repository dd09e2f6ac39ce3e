/**
 * Whether a history of concurrent operations could have happened one after
 * another, each at some instant between its call and its return: Wing and Gong
 * (1993), with Lowe's memory of what was tried (2017). Histories are cut by key
 * first, because what is linearizable for each key is so for all (Herlihy and
 * Wing 1990). An operation whose answer was lost has `ret` Infinity: it may
 * have taken effect at any time after its call, or never.
 */
export interface Operation<I, O> {
  readonly call: number;
  readonly ret: number;
  readonly input: I;
  /** Null where the answer was lost. */
  readonly output: O | null;
}

export interface Model<S, I, O> {
  readonly init: S;
  /** The states that the operation may lead to, where it took effect; none where it cannot have had this output. */
  readonly step: (state: S, input: I, output: O | null) => readonly S[];
  readonly text: (state: S) => string;
}

interface Node {
  readonly op: number;
  readonly isCall: boolean;
  prev: Node | null;
  next: Node | null;
  /** The return of a call. */
  match: Node | null;
}

/** Every call and return in the order of time; a call before a return at the same instant. */
function linked<I, O>(ops: readonly Operation<I, O>[]): Node {
  const events = ops.flatMap(({ call, ret }, op) => [
    { at: call, isCall: true, op },
    { at: ret, isCall: false, op },
  ]);
  events.sort((a, b) => (a.at === b.at ? Number(b.isCall) - Number(a.isCall) : a.at - b.at));
  const head: Node = { op: -1, isCall: false, prev: null, next: null, match: null };
  const calls: Node[] = [];
  let last = head;
  for (const { isCall, op } of events) {
    const node: Node = { op, isCall, prev: last, next: null, match: null };
    last.next = node;
    last = node;
    if (isCall) calls[op] = node;
    else calls[op]!.match = node;
  }
  return head;
}

function unlink(node: Node): void {
  node.prev!.next = node.next;
  if (node.next !== null) node.next.prev = node.prev;
}

function relink(node: Node): void {
  node.prev!.next = node;
  if (node.next !== null) node.next.prev = node;
}

interface Tried<S> {
  readonly node: Node;
  readonly before: S;
  readonly alternatives: readonly S[];
}

/** Throws after `stepsMax` steps: a verdict that was not reached is none. */
export function isLinearizable<S, I, O>(ops: readonly Operation<I, O>[], model: Model<S, I, O>, stepsMax = 5_000_000): boolean {
  const head = linked(ops);
  const done = new Uint32Array(Math.ceil(ops.length / 32));
  const flip = (op: number): void => void (done[op >> 5] = done[op >> 5]! ^ (1 << (op & 31)));
  const seen = new Set<string>();
  const stack: Tried<S>[] = [];
  let state = model.init;
  let steps = 0;
  /** Operations that returned and have no place yet. The others need none: they may never have taken effect. */
  let left = ops.filter(({ ret }) => ret < Infinity).length;
  const count = (op: number, by: number): void => void (left += ops[op]!.ret < Infinity ? by : 0);
  /** Takes the first of the states that leads to something new. */
  const enter = (node: Node, before: S, alternatives: readonly S[]): boolean => {
    flip(node.op);
    for (const [i, next] of alternatives.entries()) {
      const key = `${done.join(",")}|${model.text(next)}`;
      if (seen.has(key)) continue;
      seen.add(key);
      stack.push({ node, before, alternatives: alternatives.slice(i + 1) });
      unlink(node);
      unlink(node.match!);
      count(node.op, -1);
      state = next;
      return true;
    }
    flip(node.op);
    return false;
  };
  for (let at = head.next; ;) {
    if (left === 0) return true;
    if (++steps > stepsMax) throw new Error(`no verdict within ${stepsMax} steps`);
    if (at !== null && at.isCall) {
      const { input, output } = ops[at.op]!;
      at = enter(at, state, model.step(state, input, output)) ? head.next : at.next;
      continue;
    }
    // A return before its operation found a place: the last choice was wrong.
    const last = stack.pop();
    if (last === undefined) return false;
    relink(last.node.match!);
    relink(last.node);
    count(last.node.op, 1);
    flip(last.node.op);
    state = last.before;
    at = enter(last.node, last.before, last.alternatives) ? head.next : last.node.next;
  }
}

// The lock with a fence.

export type LockInput =
  | { readonly kind: "acquire"; readonly holder: string; readonly waits: boolean }
  | { readonly kind: "release"; readonly holder: string; readonly fence: number };
/** A fence, or whether a release was taken; `held` for an acquisition that was refused. */
export type LockOutput = number | "held" | "released" | "stale";

interface LockState {
  readonly holder: string | null;
  /** Null where nobody heard it. */
  readonly fence: number | null;
  /** The highest fence that is known. */
  readonly last: number;
}

function acquired({ holder: of, fence, last }: LockState, holder: string, output: LockOutput | null): LockState[] {
  const now: LockState = { holder: of, fence, last };
  if (output === "held") return of !== null && of !== holder ? [now] : [];
  if (output === null) return of === null ? [{ holder, fence: null, last }] : [];
  if (typeof output !== "number") return [];
  const isNew = of === null && output > last;
  const isRenewal = of === holder && (fence === null ? output > last : output === fence);
  return isNew || isRenewal ? [{ holder, fence: output, last: output }] : [];
}

function released(state: LockState, { holder, fence }: Extract<LockInput, { kind: "release" }>, output: LockOutput | null): LockState[] {
  const isHeld = state.holder === holder && (state.fence === null ? fence > state.last : state.fence === fence);
  const free: LockState = { holder: null, fence: null, last: Math.max(state.last, fence) };
  if (output === null || output === "released") return isHeld ? [free] : [];
  return output === "stale" && !isHeld ? [state] : [];
}

/** An exclusive lock without expiry: one holder, fences that only rise, and only the present one releases. */
export const LOCK_MODEL: Model<LockState, LockInput, LockOutput> = {
  init: { holder: null, fence: null, last: 0 },
  step: (state, input, output) => (input.kind === "acquire" ? acquired(state, input.holder, output) : released(state, input, output)),
  text: ({ holder, fence, last }) => `${holder}:${fence}:${last}`,
};

/** A history of several locks, by name. */
export type LockHistory = ReadonlyMap<string, readonly Operation<LockInput, LockOutput>[]>;

/** The names of the locks whose history cannot have happened. */
export function brokenLocks(history: LockHistory): string[] {
  return [...history].filter(([, ops]) => !isLinearizable(ops, LOCK_MODEL)).map(([name]) => name);
}
