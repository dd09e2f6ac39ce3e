/**
 * A tree of three accounts: a tenant's, a goal's and a sub-goal's. Tasks and
 * agents spend at both goals; messages are lost, late and repeated, and every
 * part crashes, until the world calms down; then everything must be settled.
 */
import { closeChildOf, fundChildOf, noteChildSpent } from "../../../durable-objects/goal/core/budget.ts";
import type { Recorder, Send } from "../../../durable-objects/goal/core/recorder.ts";
import { type Bounds, DIMENSIONS, type FundRequest, NOTHING, spentInAll, UNBOUNDED } from "../../../shared/policy/account.ts";
import { formatLine } from "../../../shared/protocol/line.ts";
import { Clock } from "../clock.ts";
import { Random } from "../random.ts";
import { Ledger } from "./ledger.ts";
import { type Asked, Node } from "./node.ts";
import { TenantNode } from "./tenant.ts";
import { runWorld } from "../seed.ts";

const START_MS = 1_800_000_000_000;
const STORM_MS = 4_000;
const CALM_MS = 120_000;
const EVENTS_MAX = 60_000;
const TICK_MS = 60;

interface Outcome {
  readonly seed: number;
  readonly hash: string;
  readonly violation: string | null;
  readonly turns: number;
  readonly calls: number;
}

interface Report {
  readonly spent: readonly number[];
  readonly isFinal: boolean;
}

class World {
  readonly clock = new Clock(START_MS);
  readonly ledger = new Ledger();
  turns = 0;
  readonly #random: Random;
  readonly #say: (text: string) => void;
  readonly #tenant: TenantNode;
  readonly #goal = new Node("goal");
  readonly #sub = new Node("sub");
  /** Nodes whose last report was acknowledged. */
  readonly #reported = new Set<string>();
  readonly #lossy: number;
  readonly #deadly: number;
  #isCalm = false;
  #made = 0;

  constructor(seed: number, say: (text: string) => void) {
    const random = new Random(seed);
    this.#random = random;
    this.#say = say;
    this.#lossy = random.chance(0.3) ? 0 : random.next() * 0.4;
    this.#deadly = random.chance(0.3) ? 0 : random.next() * 0.1;
    const limit: Bounds = [
      null,
      random.chance(0.8) ? random.between(5, 80) : null,
      random.chance(0.5) ? random.between(50, 900) : null,
      null,
    ];
    this.#tenant = new TenantNode(limit);
    const budget = (): { calls?: number; tokens?: number } => ({
      ...(random.chance(0.6) && { calls: random.between(3, 60) }),
      ...(random.chance(0.3) && { tokens: random.between(20, 600) }),
    });
    const [own, below] = [budget(), budget()];
    this.ledger.limits["goal"] = { calls: own.calls ?? null, pending: 0 };
    this.ledger.limits["sub"] = { calls: below.calls ?? null, pending: 0 };
    this.#goal.create(
      START_MS,
      own,
      limit.map((bound) => bound !== null),
    );
    const { account } = this.#goal.state.budget;
    const isBounded = DIMENSIONS.map((_, d) => account.limit[d] !== null || account.funds[d] !== null);
    this.#goal.turn(START_MS, 0, (rec) => fundChildOf(rec, "sub", { need: NOTHING, want: NOTHING }));
    this.#sub.create(START_MS, below, isBounded);
    say(`seed ${seed} tenant ${JSON.stringify(limit)} goal ${JSON.stringify(own)} sub ${JSON.stringify(below)}`);
  }

  get #nodes(): readonly [Node, Node] {
    return [this.#goal, this.#sub];
  }

  #log(text: string): void {
    this.#say(`${this.clock.nowMs - START_MS} ${text}`);
  }

  run(): void {
    const random = this.#random;
    for (let ms = 0; ms < STORM_MS; ms += TICK_MS) {
      this.clock.after(ms, () => {
        for (const node of this.#nodes) this.#live(node);
        this.#maybeCrash();
      });
    }
    this.clock.after(STORM_MS, () => {
      this.#log("calm");
      this.#isCalm = true;
    });
    const endAtMs = STORM_MS + random.between(100, 10_000);
    for (let ms = STORM_MS; ms < STORM_MS + CALM_MS; ms += 500) {
      this.clock.after(ms, () => {
        for (const node of this.#nodes) {
          if (ms >= endAtMs) this.#turn(node, { command: { kind: "cancel" }, key: null });
          else this.#turn(node, { command: { kind: "tick" }, key: null });
          this.#report(node);
        }
      });
    }
    for (let events = 0; events < EVENTS_MAX && this.clock.step(); events++);
    this.ledger.end(this.#tenant, this.#goal, this.#sub);
  }

  /** What callers do at a node in a moment of the storm. */
  #live(node: Node): void {
    const random = this.#random;
    const roll = random.next();
    if (roll < 0.25) {
      const specs = Array.from({ length: random.between(1, 6) }, () => ({
        call: { upstream: "api", path: "/" },
        ...(random.chance(0.3) && { reserve: { tokens: random.between(0, 40) } }),
      }));
      const submit = { kind: "submit", specs, failures: new Map(), contentKeys: new Map(), atomic: false } as const;
      this.#turn(node, { command: submit, key: null });
    } else if (roll < 0.5) this.#work(node);
    else if (roll < 0.58) this.#topUp(node);
    else if (roll < 0.62) this.#raise();
    else if (roll < 0.8) this.#report(node);
    else this.#turn(node, { command: { kind: "tick" }, key: null });
  }

  /** Someone sends a request until it is answered; the answer comes once to `then`. */
  #ask(node: Node, command: Asked["command"], then: (text: string) => void): void {
    const key = `${node.name}-${this.#made++}`;
    let isAnswered = false;
    const send = (): void => {
      if (isAnswered) return;
      const times = this.#isLost() ? 0 : this.#random.chance(0.2) && !this.#isCalm ? 2 : 1;
      for (let i = 0; i < times; i++) {
        this.clock.after(this.#random.between(0, 30), () => {
          const text = this.#turn(node, { command, key });
          if (text === null || this.#isLost() || isAnswered) return;
          isAnswered = true;
          then(text);
        });
      }
      this.clock.after(this.#random.between(50, 400), send);
    };
    send();
  }

  /** An agent reserves, works within the calls of its reservation, and may or may not say what it used. */
  #work(node: Node): void {
    const random = this.#random;
    const [calls, tokens] = [random.between(1, 5), random.between(0, 40)];
    this.#ask(node, { kind: "reserve", by: "caller", amounts: [0, calls, tokens, 0], ttlMs: random.between(50, 3_000) }, (text) => {
      const { reservation = null } = JSON.parse(text) as { reservation?: number | null };
      if (reservation === null) return;
      const isIdle = random.chance(0.3);
      const used = isIdle
        ? [0, 0]
        : [random.between(0, calls), random.chance(0.2) ? tokens + random.between(0, 30) : random.between(0, tokens)];
      if (!isIdle) this.ledger.spend(node.name, used[0]!, used[1]!, tokens);
      if (random.chance(0.25)) return;
      const said: Bounds | null = isIdle && random.chance(0.5) ? null : [null, used[0]!, used[1]!, null];
      this.clock.after(random.between(0, 2_000), () => {
        this.#ask(node, { kind: "settle-reservation", by: "caller", reservation, used: said }, () => undefined);
      });
    });
  }

  #topUp(node: Node): void {
    const limit = this.ledger.limits[node.name]!;
    if (limit.calls === null) return;
    const calls = this.#random.between(1, 10);
    limit.pending += calls;
    this.#ask(node, { kind: "top-up", amounts: [0, calls, 0, 0], ceilings: UNBOUNDED }, (text) => {
      limit.pending -= calls;
      if (!text.includes("error")) limit.calls! += calls;
    });
  }

  #raise(): void {
    const { limit } = this.#tenant.disk;
    this.#tenant.raise(limit.map((bound) => (bound === null ? null : bound + this.#random.between(-3, 5))));
  }

  #isLost(): boolean {
    return !this.#isCalm && this.#random.chance(this.#lossy);
  }

  #maybeCrash(): void {
    const random = this.#random;
    if (this.#isCalm) return;
    for (const node of this.#nodes) {
      if (!random.chance(this.#deadly)) continue;
      node.compare();
      this.#log(`${node.name} crashes`);
      node.crash();
    }
    if (random.chance(this.#deadly)) this.#tenant.crash();
  }

  /** One turn of a node with one command; null where it died. */
  #turn(node: Node, asked: Asked): string | null {
    return this.#within(node, (rec) => node.answer(rec, asked), `${asked.command.kind} ${asked.key ?? ""}`);
  }

  #within<T>(node: Node, work: (rec: Recorder) => T, what: string): T | null {
    const fails = !this.#isCalm && this.#random.chance(this.#deadly);
    const done = node.turn(this.clock.nowMs, this.#random.between(0, 1e9), work, fails);
    this.turns++;
    this.#log(
      `${node.name} ${what}${done === null ? " died" : ""} ${String(node.state.budget.account.spent)} ${String(node.state.budget.account.reserved)}`,
    );
    if (done !== null) {
      for (const send of done.out.sends) this.#call(node, send);
      if (done.out.funds !== undefined) this.#fund(node, done.out.funds);
    }
    this.ledger.check(this.#tenant, this.#goal, this.#sub);
    return done === null ? null : done.value;
  }

  /** An executor makes the calls of a batch, or some of them, and reports, or does not. */
  #call(node: Node, { batch, tasks }: Send): void {
    const random = this.#random;
    const lines: string[] = [];
    for (const task of tasks) {
      const attempt = node.state.tasks.attempt[task]!;
      const isMade = !random.chance(0.1);
      const reserved = node.state.tasks.reserve[task] === 0 ? 10 : node.state.budget.reserves[node.state.tasks.reserve[task]! - 1]![2]!;
      const some = random.chance(0.3) ? 0 : random.between(1, 25);
      const roll = random.next();
      const status = roll < 0.75 ? 200 : roll < 0.85 ? 500 : 429;
      const outcome = !isMade ? "not_sent" : roll < 0.95 ? "answered" : "broken";
      // Whoever refuses a call has done nothing for it.
      const tokens = outcome === "answered" && status === 429 ? 0 : some;
      this.clock.after(random.between(0, 20), () => {
        if (isMade) this.ledger.spend(node.name, 1, tokens, reserved);
      });
      const head = {
        task,
        attempt,
        outcome,
        status,
        retryAfterMs: 0,
        startedAtMs: this.clock.nowMs,
        endedAtMs: this.clock.nowMs + 20,
      } as const;
      lines.push(formatLine({ ...head, tokens: status === 200 ? tokens : 0 }, "{}"));
    }
    this.clock.after(random.between(21, 200), () => {
      const times = this.#isLost() ? 0 : random.chance(0.2) ? 2 : 1;
      for (let i = 0; i < times; i++) this.#turn(node, { command: { kind: "settle", lines, seed: 1 }, key: null });
      this.#turn(node, { command: { kind: "batch-lost", batch }, key: null });
    });
  }

  /** A question to the account above, and its answer: each may be lost, late or said twice. */
  #fund(node: Node, request: FundRequest): void {
    const random = this.#random;
    let isAnswered = false;
    const answer = (funds: Bounds | null): void => {
      if (isAnswered && funds === null) return;
      isAnswered = true;
      this.#turn(node, { command: { kind: "funded", need: request.need, funds }, key: null });
    };
    const times = this.#isLost() ? 0 : random.chance(0.2) ? 2 : 1;
    for (let i = 0; i < times; i++) {
      this.clock.after(random.between(0, 300), () => {
        const funds = node === this.#goal ? this.#tenant.fund("goal", request) : this.#fundSub(request);
        this.#log(`${node.name} asks ${JSON.stringify(request.need)} gets ${JSON.stringify(funds)}`);
        this.ledger.check(this.#tenant, this.#goal, this.#sub);
        if (funds === null || this.#isLost()) return;
        this.clock.after(random.between(0, 300), () => answer(funds));
      });
    }
    this.clock.after(700, () => answer(null));
  }

  #fundSub(request: FundRequest): Bounds | null {
    const goal = this.#goal;
    return this.#within(goal, (rec) => (goal.disk.closed.has("sub") ? null : fundChildOf(rec, "sub", request)), "funds the sub-goal");
  }

  /** A node tells the account above what it has spent; its last word is repeated until it is acknowledged. */
  #report(node: Node): void {
    if (this.#reported.has(node.name)) return;
    const { goal, budget } = node.state;
    const isFinal = goal!.phase !== "active" && budget.account.children.size === 0;
    const report: Report = { spent: spentInAll(budget.account), isFinal };
    const times = this.#isLost() ? 0 : this.#random.chance(0.3) ? 2 : 1;
    for (let i = 0; i < times; i++) {
      this.clock.after(this.#random.between(0, 200), () => {
        if (node === this.#goal) this.#tenant.report("goal", report.spent, report.isFinal);
        else if (!this.#takeReport(report)) return;
        if (isFinal && !this.#isLost()) this.#reported.add(node.name);
        this.ledger.check(this.#tenant, this.#goal, this.#sub);
      });
    }
  }

  #takeReport({ spent, isFinal }: Report): boolean {
    const goal = this.#goal;
    const taken = this.#within(
      goal,
      (rec) => {
        if (goal.disk.closed.has("sub")) return true;
        if (isFinal) {
          closeChildOf(rec, "sub", spent);
          goal.noteClosed("sub");
        } else noteChildSpent(rec, "sub", spent);
        return true;
      },
      "hears of the sub-goal",
    );
    return taken === true;
  }
}

/** Runs one seed. `print` gets every line of its log. */
export function runSeed(seed: number, print: (line: string) => void = () => undefined): Outcome {
  const { world, ...outcome } = runWorld(seed, print, (say) => new World(seed, say));
  return { ...outcome, turns: world.turns, calls: world.ledger.total().calls };
}
