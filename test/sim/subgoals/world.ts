/**
 * A world of goals inside goals: each is a real core on a disk of its own, and
 * dies by itself. Their messages get lost, come twice, late and in another
 * order, until the world calms down; then all must come to its end, and the
 * root must know the truth.
 */
import { linkOf } from "../../../durable-objects/goal/core/subgoals.ts";
import type { Out, Send } from "../../../durable-objects/goal/core/recorder.ts";
import type { Birth, RelativeCommand, RelativeDone } from "../../../durable-objects/goal/core/relatives.ts";
import type { GoalState } from "../../../durable-objects/goal/core/state.ts";
import type { Command } from "../../../durable-objects/goal/core/step.ts";
import { type GoalId, goalIdFrom } from "../../../shared/ids.ts";
import { LANES_DEFAULT, LEASE_TTL_MS_MAX } from "../../../shared/limits.ts";
import { type Bounds, type FundRequest, fundsOf, UNBOUNDED } from "../../../shared/policy/account.ts";
import type { Report } from "../../../shared/protocol/admission.ts";
import { parseNestedGoal } from "../../../shared/protocol/goal.ts";
import { formatLine } from "../../../shared/protocol/line.ts";
import type { SubgoalOrder, SubgoalReport } from "../../../shared/protocol/subgoal.ts";
import type { TaskSpec } from "../../../shared/protocol/task.ts";
import { Clock } from "../clock.ts";
import { NO_FAULTS } from "../faults.ts";
import { Random } from "../random.ts";
import { Shell, type Turn } from "../shell.ts";
import { Disk, NEVER } from "../storage.ts";
import { SubgoalCheckers } from "./checkers.ts";
import { Funds } from "./funds.ts";
import { type Plan, planOf, REGISTRY } from "./plan.ts";
import { runWorld } from "../seed.ts";

const START_MS = 1_800_000_000_000;
const PATIENCE_MS = 240_000;
const TURNS_MAX = 100_000;
/** Where no message is lost, it takes less for more funds to come down all levels; who hears nothing asks again after 30 seconds. */
const FUNDS_HEARD_MS = 10_000;

/** What a goal does that was asked. */
type Serve = (shell: Shell, answer: (said: RelativeDone) => void) => void;

/** One goal: its disk, and the incarnation that runs, if any. */
class Node {
  readonly disk = new Disk();
  shell: Shell | null = null;
  funds: Funds | null = null;
  downUntilMs = 0;
  alarmSetMs = NEVER;
  lives = 0;
  granted = 0;
}

class World {
  readonly clock = new Clock(START_MS);
  readonly plan: Plan;
  readonly checkers: SubgoalCheckers;
  readonly nodes = new Map<string, Node>();
  messages = 0;
  turns = 0;
  readonly #rootId = goalIdFrom(START_MS, new Uint8Array(16));
  readonly #random: Random;
  readonly #say: (text: string) => void;
  #isCalm = false;

  constructor(seed: number, say: (text: string) => void) {
    this.#random = new Random(seed);
    this.plan = planOf(this.#random.fork());
    this.checkers = new SubgoalCheckers(this.#rootId);
    this.#say = say;
    say(`seed ${seed} ${JSON.stringify(this.plan)}`);
  }

  #log(text: string): void {
    this.#say(`${this.clock.nowMs - START_MS} ${text}`);
  }

  run(): void {
    const { clock, plan } = this;
    const { spec, tasks } = plan.root;
    const specs = { specs: tasks, failures: new Map(), contentKeys: new Map() };
    this.#insist(this.#rootId, { kind: "create", id: this.#rootId, spec, registry: REGISTRY, tasks: specs }, "create");
    plan.controls.forEach(({ atMs, verb, level }, i) => clock.after(atMs, () => this.#control(verb, level, `control-${i}`)));
    for (let ms = 50; ms < plan.calmAfterMs; ms += 50) clock.after(ms, () => this.#maybeCrash());
    clock.after(plan.calmAfterMs, () => this.#calmDown());
    const endMs = START_MS + plan.calmAfterMs + PATIENCE_MS;
    while (clock.nowMs < endMs && this.turns < TURNS_MAX && !this.#isOver() && clock.step());
    this.checkers.end(new Map([...this.nodes].map(([id, { disk }]) => [id, disk.load()])));
  }

  #isOver(): boolean {
    if (!this.#isCalm) return false;
    return [...this.nodes.values()].every(({ shell }) => shell !== null && shell.state.goal !== null && isQuiet(shell.state));
  }

  #node(id: string): Node {
    let node = this.nodes.get(id);
    if (node === undefined) this.nodes.set(id, (node = new Node()));
    return node;
  }

  /** The incarnation that answers, woken if there is none. Null while the object is down. */
  #current(id: string): Shell | null {
    const node = this.#node(id);
    if (node.shell !== null || this.clock.nowMs < node.downUntilMs) return node.shell;
    const { clock, plan } = this;
    const { crashAfterCommit, commitFails } = this.#isCalm ? NO_FAULTS : plan.faults;
    const ignore = (): void => undefined;
    const made = new Shell({
      clock,
      disk: node.disk,
      random: this.#random.fork(),
      faults: { ...NO_FAULTS, crashAfterCommit, commitFails },
      snapshotRows: plan.snapshotRows,
      life: (++node.lives).toString(16).padStart(16, "0"),
      exchange: (shell, report) => this.#grant(node, shell, report),
      renew: ignore,
      send: (shell, send) => this.#execute(id, shell, send),
      abort: ignore,
      observe: (turn) => this.#observe(id, node, turn),
      crash: (shell, why) => this.#crash(id, node, shell, why),
      destroy: ignore,
      relate: (shell, out) => this.#relate(id, shell, out),
    });
    node.funds = new Funds(
      made,
      (request, taken) => this.#fund(id, made, request, taken),
      (goalId) => this.#tellOfFunds(goalId),
    );
    node.shell = made;
    return made;
  }

  #observe(id: string, node: Node, turn: Turn): void {
    this.turns++;
    const { state, executed } = turn;
    if (state.goal !== null) {
      const asked = executed.map(({ command }) => command.kind).join(",");
      this.#log(
        `${id.slice(-4)} ${state.goal.phase} [${asked}] ${String(state.counts)} open=${state.kin.open.size} owed=${state.kin.owed.size}`,
      );
      this.checkers.turn(id, state, this.clock.nowMs);
      if (this.#random.chance(this.plan.compare)) this.checkers.compare(state, node.disk);
    }
    const atMs = node.disk.alarmAtMs;
    if (atMs < node.alarmSetMs) {
      node.alarmSetMs = atMs;
      this.clock.at(atMs, () => this.#fire(id, node, atMs));
    }
  }

  #fire(id: string, node: Node, atMs: number): void {
    if (node.alarmSetMs !== atMs) return;
    node.alarmSetMs = NEVER;
    const shell = this.#current(id);
    if (shell === null) {
      node.alarmSetMs = node.downUntilMs;
      return this.clock.at(node.downUntilMs, () => this.#fire(id, node, node.downUntilMs));
    }
    node.disk.alarmAtMs = NEVER;
    shell.wake();
  }

  #maybeCrash(): void {
    if (this.#isCalm) return;
    for (const [id, node] of this.nodes) {
      if (node.shell === null || !this.#random.chance(this.plan.faults.crash)) continue;
      if (node.shell.state.goal !== null) this.checkers.compare(node.shell.state, node.disk);
      this.#crash(id, node, node.shell, "killed");
    }
  }

  #crash(id: string, node: Node, shell: Shell, why: string): void {
    this.#log(`${id.slice(-4)} crash: ${why}`);
    shell.isDead = true;
    node.shell = null;
    node.downUntilMs = this.clock.nowMs + (this.#isCalm ? 0 : this.#random.between(0, 300));
    // A platform that has lost an object goes on with its alarm, if it has one.
    const atMs = node.disk.alarmAtMs;
    if (atMs === NEVER) return;
    node.alarmSetMs = atMs;
    this.clock.at(atMs, () => this.#fire(id, node, atMs));
  }

  /** Grants to whoever has work all that there is. */
  #grant(node: Node, shell: Shell, { seq, wants, upstream }: Report): void {
    const open = { starts: null, ttlMs: LEASE_TTL_MS_MAX, gateMs: 0, isOpen: false, origins: null, callsPerSecond: 0 };
    const grant = { epoch: 1, number: ++node.granted, seq, calls: wants.every((count) => count === 0) ? 0 : LANES_DEFAULT, ...open };
    this.clock.after(this.#random.between(1, 5), () => {
      if (!shell.isDead) shell.grant(upstream.name, shell.state.life, grant);
    });
  }

  /** Executors run all that they get, and report to whoever is there. */
  #execute(id: string, shell: Shell, { batch, tasks }: Send): void {
    for (const task of tasks) {
      const attempt = shell.state.tasks.attempt[task]!;
      const startedAtMs = this.clock.nowMs;
      this.checkers.call(id, startedAtMs);
      const status = this.#random.chance(this.plan.faults.callFails) ? 404 : 200;
      this.clock.after(this.#random.between(1, 400), () => {
        const endedAtMs = this.clock.nowMs;
        const head = { task, attempt, outcome: "answered", status, retryAfterMs: 0, startedAtMs, endedAtMs } as const;
        this.#current(id)?.take([formatLine(head, '{"status":200,"body":null}').trimEnd()]);
      });
    }
    this.clock.after(500, () => {
      if (!shell.isDead) shell.close(batch);
    });
  }

  // What goals tell one another.

  #relate(id: string, shell: Shell, { orders, report, funds }: Pick<Out, "orders" | "report" | "funds">): void {
    for (const order of orders) this.#order(shell, order);
    const { parent } = shell.state.goal?.spec ?? {};
    if (report !== null) this.#report(parent!.goalId, shell, report);
    if (funds !== undefined) this.#fund(id, shell, funds);
    this.nodes.get(id)!.funds!.committed();
  }

  #order(shell: Shell, order: SubgoalOrder): void {
    const birth = shell.state.kin.open.get(order.task)?.isMade === false ? this.#birthOf(shell, order) : null;
    this.#say(`order ${order.goalId.slice(-4)} stop=${order.stop} paused=${order.isPaused}`);
    const unheard: RelativeCommand = { kind: "not-obeyed", task: order.task };
    this.#ask(order.goalId, { kind: "obey", order, birth }, shell, unheard, (answer) => {
      return { kind: "obeyed", order, report: answer.report ?? null };
    });
  }

  #report(parentId: string, shell: Shell, report: SubgoalReport): void {
    this.#ask(parentId, { kind: "hear", report }, shell, { kind: "not-heard" }, (answer) => {
      return { kind: "heard", number: report.number, word: answer.word! };
    });
  }

  #fund(id: string, shell: Shell, request: FundRequest, taken = (): void => undefined): void {
    const { parent } = shell.state.goal!.spec;
    const funded = (funds: Bounds | null): Command => ({ kind: "funded", need: request.need, funds });
    if (parent === undefined) return shell.ask({ id: null, command: funded(UNBOUNDED), answer: taken });
    const serve: Serve = (_, answer) => this.nodes.get(parent.goalId)!.funds!.fund({ goalId: id, task: parent.task, request }, answer);
    this.#exchange(parent.goalId, serve, shell, funded(null), (answer) => funded(answer.funds!), taken);
  }

  /** That there is more comes by a way of its own, and may overtake the answer that there was none. */
  #tellOfFunds(goalId: string): void {
    if (!this.#isCalm && this.#random.chance(this.plan.faults.lost)) return;
    this.clock.after(this.#random.between(1, 20), () => {
      if (this.#current(goalId) !== null) this.nodes.get(goalId)!.funds!.moreFunds();
    });
  }

  #ask(to: string, command: Command, from: Shell, unheard: Command, heard: (answer: RelativeDone) => Command): void {
    const serve: Serve = (shell, answer) => shell.ask({ id: null, command, answer: (text) => answer(JSON.parse(text) as RelativeDone) });
    this.#exchange(to, serve, from, unheard, heard);
  }

  /** Asks another goal, and takes the answer back to the incarnation that asked. Either way it may get lost, late or doubled. */
  #exchange(
    to: string,
    serve: Serve,
    from: Shell,
    unheard: Command,
    heard: (answer: RelativeDone) => Command,
    taken = (): void => undefined,
  ): void {
    const { clock } = this;
    const faults = this.#isCalm ? null : this.plan.faults;
    this.messages++;
    let isAnswered = false;
    const back = (answer: Command): void => {
      if (isAnswered || from.isDead) return;
      isAnswered = true;
      from.ask({ id: null, command: answer, answer: taken });
    };
    clock.after(1_000, () => back(unheard));
    const times = faults !== null && this.#random.chance(faults.twice) ? 2 : 1;
    for (let i = 0; i < times; i++) {
      if (faults !== null && this.#random.chance(faults.lost)) continue;
      const lateMs = faults !== null && this.#random.chance(faults.late) ? this.#random.between(500, 5_000) : this.#random.between(1, 20);
      clock.after(lateMs, () => {
        const isLost = !this.#isCalm && this.#random.chance(this.plan.faults.lost);
        const shell = this.#current(to);
        if (shell === null) return;
        serve(shell, (said) => {
          if (!isLost) clock.after(this.#random.between(1, 20), () => back(heard(said)));
        });
      });
    }
  }

  #birthOf({ state }: Shell, { goalId, task }: SubgoalOrder): Birth {
    const disk = [...this.nodes.values()].find(({ shell }) => shell?.state === state)!.disk;
    const specs = JSON.parse(disk.offers.get(state.tasks.offer[task]!)!) as TaskSpec[];
    const { spec, tasks } = parseNestedGoal(specs[state.tasks.position[task]!]!.goal);
    const submit = { specs: tasks as TaskSpec[], failures: new Map(), contentKeys: new Map() };
    const funds = fundsOf(state.budget.account, String(task));
    return {
      id: goalId as GoalId,
      spec: { ...spec, parent: linkOf(state, task, spec.deadlineMs) },
      registry: REGISTRY,
      funds,
      tasks: submit,
    };
  }

  // Callers.

  #control(verb: "cancel" | "pause" | "resume", level: number, name: string): void {
    const ids = [...this.nodes.keys()];
    const id = ids[Math.min(level, ids.length - 1)];
    if (id !== undefined) this.#insist(id, { kind: verb }, name);
  }

  /** Says it until it is answered. */
  #insist(id: string, command: Command, name: string): void {
    let isAnswered = false;
    const send = (): void => {
      if (isAnswered) return;
      this.#current(id)?.ask({ id: name, command, answer: (text) => (isAnswered = !text.includes("not_found")) });
      this.clock.after(500, send);
    };
    send();
  }

  #calmDown(): void {
    this.#log("calm");
    this.#isCalm = true;
    for (const [id, node] of this.nodes) if (node.shell !== null) this.#crash(id, node, node.shell, "restarted without faults");
    this.clock.after(4_000, () => this.#topUp());
    this.clock.after(6_000, () => this.#close(new Set()));
  }

  /** Adds to budgets on all levels, at first little by little; then nobody may rest for want of it. */
  #topUp(): void {
    const { clock } = this;
    for (let i = 0; i < 40; i++) clock.after(i * 15, () => this.#add(this.#random.pick([...this.nodes.keys()]), 1, `drop-${i}`));
    clock.after(1_000, () => [...this.nodes.keys()].forEach((id) => this.#add(id, 1_000, "top-up")));
    clock.after(1_000 + FUNDS_HEARD_MS, () => {
      for (const [id, { shell }] of this.nodes) if (shell !== null) this.checkers.funded(id, shell.state);
    });
  }

  #add(id: string, calls: number, name: string): void {
    if (this.nodes.get(id)!.shell?.state.budget.account.limit[1] === null) return;
    this.#insist(id, { kind: "top-up", amounts: [0, calls, 0, 0], ceilings: UNBOUNDED }, name);
  }

  /** Lets everything go on, and come to its end, also what is made only now. */
  #close(closed: Set<string>): void {
    for (const id of this.nodes.keys()) {
      if (closed.has(id)) continue;
      closed.add(id);
      // One that was made only now had nothing added to its budget.
      this.#add(id, 1_000, "top-up");
      this.#insist(id, { kind: "resume" }, `resume ${id}`);
      this.#insist(id, { kind: "seal" }, `seal ${id}`);
    }
    this.clock.after(1_000, () => this.#close(closed));
  }
}

/** Nothing will happen here any more. */
function isQuiet({ goal, kin }: GoalState): boolean {
  const isTold = goal!.spec.parent === undefined || (kin.told !== null && kin.told.isFinal && kin.acknowledged >= kin.told.number);
  return goal!.phase !== "active" && kin.open.size === 0 && isTold;
}

export interface Outcome {
  readonly seed: number;
  readonly hash: string;
  readonly violation: string | null;
  readonly goals: number;
  readonly messages: number;
}

/** Runs one seed. `print` gets every line of its log. */
export function runSeed(seed: number, print: (line: string) => void = () => undefined): Outcome {
  const { world, ...outcome } = runWorld(seed, print, (say) => new World(seed, say));
  return { ...outcome, goals: world.nodes.size, messages: world.messages };
}
