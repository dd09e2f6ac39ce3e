/**
 * One simulated world: a goal, its callers, its executors and its disk, in
 * virtual time, all from one seed. It misbehaves as its plan says until it
 * calms down; then it must bring everything to an end.
 */
import { isBusy } from "../../durable-objects/goal/core/wake.ts";
import { goalIdFrom } from "../../shared/ids.ts";
import { Checkers } from "./checkers.ts";
import { NO_FAULTS as NO_WORKER_FAULTS, workOf, workPlanOf } from "./claims/plan.ts";
import { Workers } from "./claims/worker.ts";
import { Client, type Request } from "./client.ts";
import { Clock } from "./clock.ts";
import { changed, type Faults, NO_FAULTS, type Plan, planOf } from "./faults.ts";
import { checkOpen } from "./hedges/checker.ts";
import { hedgePlanOf } from "./hedges/plan.ts";
import { Governors } from "./governors.ts";
import { Network } from "./network.ts";
import { Random } from "./random.ts";
import { People } from "./rights/people.ts";
import { rightsPlanOf } from "./rights/plan.ts";
import { NO_FAULTS as NO_RUN_FAULTS, runOf, type RunPlan, runPlanOf, someOf } from "./runs/plan.ts";
import { Shell, type Turn } from "./shell.ts";
import { Disk, NEVER } from "./storage.ts";
import { Violation } from "./violation.ts";
import { runWorld } from "./seed.ts";

const START_MS = 1_800_000_000_000;
/** After the calm: leases of 14 s and backoffs of 20 s may follow one another a few times. */
const PATIENCE_MS = 240_000;
const TURNS_MAX = 200_000;

export interface Outcome {
  readonly seed: number;
  readonly hash: string;
  readonly violation: string | null;
  readonly turns: number;
  readonly tasks: number;
}

class World {
  readonly clock = new Clock(START_MS);
  readonly disk = new Disk();
  readonly plan: Plan;
  /** Null in a run that is only there to give the same log: whether anybody watches makes no difference. */
  readonly checkers: Checkers | null;
  turns = 0;
  readonly #random: Random;
  readonly #chaos: Random;
  readonly #network: Network;
  readonly #governors: Governors;
  readonly #client: Client;
  readonly #workers: Workers;
  readonly #runs: RunPlan;
  readonly #registrar: Random;
  readonly #people: People;
  readonly #say: (text: string) => void;
  #shell: Shell | null = null;
  #lives = 0;
  #downUntilMs = 0;
  #alarmSetMs = NEVER;
  #isCalm = false;
  #isDestroyed = false;
  #isReporting = false;

  constructor(seed: number, say: (text: string) => void, isWatched: boolean) {
    this.#random = new Random(seed);
    const hedging = new Random(seed ^ 0x2545f491);
    const { plan, hedges } = hedgePlanOf(hedging, planOf(this.#random.fork()));
    this.plan = plan;
    this.#chaos = this.#random.fork();
    this.#say = say;
    say(`seed ${seed} ${JSON.stringify(this.plan)}`);
    const administering = new Random(seed ^ 0x7f4a7c15);
    const rights = rightsPlanOf(administering.fork());
    if (rights.isOn) say(JSON.stringify(rights));
    this.checkers = isWatched ? new Checkers(this.plan, this.disk, rights) : null;
    const goal = goalIdFrom(START_MS, new Uint8Array(16));
    const outside = new Random(seed ^ 0x9e3779b9);
    const work = workPlanOf(outside.fork());
    const kinds = outside.fork();
    if (work.queues.length > 0) say(JSON.stringify(work));
    const functions = new Random(seed ^ 0x51ed270b);
    this.#runs = runPlanOf(functions.fork());
    if (this.#runs.functions.length > 0) say(JSON.stringify(this.#runs));
    this.#registrar = functions.fork();
    const other = (): ReturnType<typeof workOf> | ReturnType<typeof runOf> => workOf(kinds, work) ?? runOf(functions, this.#runs);
    this.#client = new Client(this.#random.fork(), this.plan, goal, other, rights.goal, this.#runs.functions);
    this.#people = new People({
      clock: this.clock,
      random: administering.fork(),
      plan: rights,
      upstreams: this.plan.upstreams,
      functions: () => someOf(this.#registrar, this.#runs),
      requests: this.plan.requests,
      calmAfterMs: this.plan.calmAfterMs,
      state: () => this.#shell?.state,
      ask: (id, command) => this.#ask({ id, command }),
      tell: (command) => this.#current()?.ask({ id: null, command, answer: () => undefined }),
    });
    this.#workers = new Workers({
      clock: this.clock,
      random: outside.fork(),
      plan: work,
      goal,
      faults: () => (this.#isCalm ? NO_WORKER_FAULTS : work.faults),
      ask: (id, command, then) => this.#ask({ id, command }, then),
      told: (grant) => this.checkers?.told(grant),
    });
    this.#network = new Network({
      clock: this.clock,
      random: this.#random.fork(),
      faults: () => this.#faults,
      ledger: (call) => {
        this.#log(`call ${call.task}.${call.attempt} ${call.effect}`);
        this.checkers?.call(call, this.#shell?.state);
        const upstream = this.#shell?.state.tasks.upstream[call.task];
        if (upstream !== undefined) checkOpen(this.#shell!.state, upstream, this.#network.openAt(upstream));
      },
      current: () => this.#current(),
      runs: {
        faults: () => (this.#isCalm ? NO_RUN_FAULTS : this.#runs.faults),
        calls: this.#runs.calls,
        ledger: (deed) => {
          this.#log(`run ${deed.task}.${deed.attempt} ${deed.kind}`);
          this.checkers?.ran(deed);
        },
      },
      log: (text) => this.#log(text),
    });
    this.#governors = new Governors({
      clock: this.clock,
      random: this.#random.fork(),
      faults: () => this.#faults,
      log: (text) => this.#log(text),
      hedgeAfterMs: () => (hedging.chance(hedges.lets) ? hedging.between(1, hedges.afterMsMax) : null),
    });
  }

  get #faults(): Faults {
    return this.#isCalm ? NO_FAULTS : this.plan.faults;
  }

  #log(text: string): void {
    this.#say(`${this.clock.nowMs - START_MS} ${text}`);
  }

  run(): void {
    const { clock, plan } = this;
    this.#create();
    this.#workers.start();
    this.#people.start();
    for (let i = 0; i < plan.requests; i++) {
      clock.after(this.#random.between(0, plan.calmAfterMs), () => this.#ask({ ...this.#client.submit(), bearer: this.#people.bearer() }));
    }
    for (let i = 0; i < plan.requests * plan.controls; i++) {
      clock.after(this.#random.between(0, plan.calmAfterMs), () => {
        this.#ask({ ...this.#client.control(this.#shell?.state.tasks.n ?? 1), bearer: this.#people.bearer() });
      });
    }
    for (let i = 1; i <= plan.registries; i++) {
      const command = {
        kind: "upstreams",
        version: 1 + i,
        upstreams: changed(this.#random, plan.upstreams),
        functions: someOf(this.#registrar, this.#runs),
      } as const;
      clock.after(this.#random.between(0, plan.calmAfterMs), () => this.#current()?.ask({ id: null, command, answer: () => undefined }));
    }
    for (let ms = 100; ms < plan.calmAfterMs; ms += 100) clock.after(ms, () => this.#maybeCrash());
    clock.after(plan.calmAfterMs, () => this.#calmDown());
    const endMs = START_MS + plan.calmAfterMs + PATIENCE_MS;
    while (!this.#isDestroyed && clock.nowMs < endMs && this.turns < TURNS_MAX && clock.step());
    this.checkers?.end(this.disk.load());
    if (!this.#isDestroyed) throw new Violation("an ended goal is deleted after its retention: it was not");
  }

  /** The incarnation that answers, woken if there is none. Null while the object is down. */
  #current(): Shell | null {
    if (this.#shell !== null || this.clock.nowMs < this.#downUntilMs) return this.#shell;
    this.#log("loads");
    const { clock, disk } = this;
    this.#shell = new Shell({
      clock,
      disk,
      random: this.#random.fork(),
      faults: this.#isCalm ? NO_FAULTS : this.plan.faults,
      snapshotRows: this.plan.snapshotRows,
      life: (++this.#lives).toString(16).padStart(16, "0"),
      exchange: (shell, report) => this.#governors.exchange(shell, report),
      renew: (shell, upstream) => this.#network.renew(shell, upstream),
      send: (shell, send) => this.#network.send(shell, send),
      abort: (shell, attempts) => this.#network.abort(shell, attempts),
      observe: (turn) => this.#observe(turn),
      crash: (shell, why) => this.#crash(shell, why),
      destroy: () => {
        this.#isDestroyed = true;
      },
    });
    return this.#shell;
  }

  #observe(turn: Turn): void {
    const { state, executed, sends, settled, changes } = turn;
    this.turns++;
    const asked = executed.map(({ command, reply }) => `${command.kind}${reply.ok ? "" : `!${reply.error.code}`}`).join(",");
    const sent = sends.map(({ batch, tasks, isBackup }) => `${batch}:${tasks.join("+")}${isBackup === true ? " again" : ""}`).join(" ");
    this.#log(`turn changes=${changes} settled=${settled.length} asked=[${asked}] sent=[${sent}] counts=${String(state.counts)}`);
    this.checkers?.turn(turn);
    if (this.#chaos.chance(this.plan.compare)) this.checkers?.compare(state);
    this.#watchAlarm();
    if (state.goal !== null && state.goal.phase !== "active" && !state.goal.endReported) this.#reportEnd();
  }

  /** The tenant's directory hears of the end; a crash may make it hear twice. */
  #reportEnd(): void {
    if (this.#isReporting) return;
    this.#isReporting = true;
    this.clock.after(this.#chaos.between(1, 50), () => {
      this.#isReporting = false;
      this.#current()?.ask({ id: null, command: { kind: "end-reported" }, answer: () => undefined });
    });
  }

  #watchAlarm(): void {
    const atMs = this.disk.alarmAtMs;
    if (atMs >= this.#alarmSetMs || atMs === NEVER) return;
    this.#alarmSetMs = atMs;
    this.clock.at(atMs, () => this.#fire(atMs));
  }

  #fire(atMs: number): void {
    if (this.#alarmSetMs !== atMs) return;
    this.#alarmSetMs = NEVER;
    const shell = this.#current();
    if (shell === null) {
      this.#alarmSetMs = this.#downUntilMs;
      return this.clock.at(this.#downUntilMs, () => this.#fire(this.#downUntilMs));
    }
    this.disk.alarmAtMs = NEVER;
    shell.wake();
  }

  #maybeCrash(): void {
    if (this.#isCalm || this.#shell === null || !this.#chaos.chance(this.plan.faults.crash)) return;
    // Between turns memory holds exactly what disk does.
    this.checkers?.compare(this.#shell.state);
    this.#crash(this.#shell, "killed");
  }

  #crash(shell: Shell, why: string): void {
    this.#log(`crash: ${why}`);
    shell.isDead = true;
    this.#shell = null;
    this.#downUntilMs = this.clock.nowMs + (this.#isCalm ? 0 : this.#chaos.between(0, 300));
    this.#network.disconnect();
    this.#watchAlarm();
  }

  #create(): void {
    const request = this.#client.create();
    this.#ask(request, (text) => {
      if ("error" in (JSON.parse(text) as object)) this.#create();
    });
  }

  /** Sends a request, again and again until it is answered. */
  #ask(request: Request, then: (text: string) => void = () => undefined): void {
    const { clock } = this;
    let answered: string | null = null;
    const answer = (text: string): void => {
      if (this.#chaos.chance(this.#faults.replyLost)) return;
      clock.after(this.#chaos.between(0, 5), () => {
        if (answered === null) {
          answered = text;
          this.#answered(request, text);
          then(text);
        } else if (!text.includes("error") && !answered.includes("error") && answered !== text) {
          throw new Violation(`a request that is repeated has one answer: ${request.id} ${answered} ${text}`);
        }
      });
    };
    const send = (): void => {
      if (answered !== null || this.#isDestroyed) return;
      const times = this.#chaos.chance(this.#faults.requestTwice) ? 2 : 1;
      for (let i = 0; i < times; i++) {
        if (this.#chaos.chance(this.#faults.requestLost)) continue;
        clock.after(this.#chaos.between(0, 10), () => this.#current()?.ask({ ...request, answer }));
      }
      clock.after(this.#chaos.between(200, 1_000), send);
    };
    send();
  }

  #answered({ id, command }: Request, text: string): void {
    this.#log(`answered ${id} ${command.kind} ${text}`);
    const { tasks, task } = JSON.parse(text) as { tasks?: number[]; task?: number };
    this.checkers?.promised(tasks ?? [], id);
    if (command.kind === "retry-task" && task !== undefined) this.checkers?.promised([task], id);
  }

  /** Nothing goes wrong any more: resume, decide what is in doubt, seal. */
  #calmDown(): void {
    this.#log("calm");
    this.#isCalm = true;
    // What has only just been asked is answered before the goal is sealed.
    if (this.#shell !== null) this.#crash(this.#shell, "restarted without faults");
    this.clock.after(2_500, () => {
      this.#ask(this.#client.restore());
      this.#ask(this.#client.ask("resume"));
      if (this.plan.calls !== null) this.#ask(this.#client.topUp());
      this.#ask(this.#client.ask("seal"));
      this.#decideDoubts();
    });
  }

  #decideDoubts(): void {
    const state = this.#shell?.state;
    if (state !== undefined) {
      for (let task = 0; task < state.tasks.n; task++) {
        if (state.tasks.status[task] === 1 && state.tasks.reason[task] === 4) this.#ask(this.#client.resolve(task));
      }
      this.#people.decideAll(state);
      if (state.goal !== null && state.goal.phase !== "active" && !isBusy(state)) return;
    }
    this.clock.after(700, () => this.#decideDoubts());
  }
}

/** Runs one seed. `print` gets every line of its log. */
export function runSeed(seed: number, print: (line: string) => void = () => undefined, isWatched = true): Outcome {
  const { world, ...outcome } = runWorld(seed, print, (say) => new World(seed, say, isWatched));
  return { ...outcome, turns: world.turns, tasks: world.checkers?.model.tasks.size ?? 0 };
}
