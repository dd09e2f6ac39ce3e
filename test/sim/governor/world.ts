/**
 * A governor's world: the governor, its disk, its clients and their upstream
 * in virtual time, all from one seed. It misbehaves as its plan says until it
 * calms down; then every job must be done and the governor must come to rest.
 */
import type { Push } from "../../../durable-objects/governor/core/step.ts";
import type { Grant, Report } from "../../../shared/protocol/admission.ts";
import type { Upstream as Config } from "../../../shared/protocol/upstream.ts";
import { Clock } from "../clock.ts";
import { Random } from "../random.ts";
import { Checkers } from "./checkers.ts";
import { must } from "../violation.ts";
import { Client, type Registry } from "./client.ts";
import { type Faults, NO_FAULTS, type Plan, planOf } from "./faults.ts";
import { type Disk, Governor } from "./governor.ts";
import { Measure } from "./measure.ts";
import { Upstream } from "./upstream.ts";
import { runWorld } from "../seed.ts";

const START_MS = 1_800_000_000_000;
/** After the calm. */
const PATIENCE_MS = 60_000;
/** So much longer than the upstream needs at least the jobs may take. */
const SLOWNESS = 4;
const CHAOS_MS = 100;
const WATCH_MS = 25;
const DELAY_MS_MAX = 4;
const CUT_OFF_MS_MAX = 6_000;
/** Clients look at the registry every two seconds. */
const REGISTRY_MS_MAX = 2_000;

export interface Outcome {
  readonly seed: number;
  readonly hash: string;
  readonly violation: string | null;
  readonly calls: number;
  readonly messages: number;
}

class World {
  readonly clock = new Clock(START_MS);
  readonly plan: Plan;
  readonly checkers: Checkers;
  calls = 0;
  messages = 0;
  readonly #random: Random;
  readonly #chaos: Random;
  readonly #disk: Disk = { kept: null };
  readonly #upstream: Upstream;
  readonly #clients: Client[];
  readonly #say: (text: string) => void;
  #registry: Registry;
  #governor: Governor | null = null;
  #downUntilMs = 0;
  #process = 1;
  #cutOff = "";
  #cutOffUntilMs = 0;
  #isCalm = false;
  #isMeasured = false;
  #isOver = false;

  constructor(seed: number, say: (text: string) => void) {
    this.#random = new Random(seed);
    this.plan = planOf(this.#random.fork());
    this.#chaos = this.#random.fork();
    this.#say = say;
    say(`seed ${seed} ${JSON.stringify(this.plan)}`);
    const { plan, clock } = this;
    const faults = (): Faults => (this.#isCalm ? NO_FAULTS : plan.faults);
    this.#upstream = new Upstream(clock, this.#random.fork(), plan, faults);
    this.checkers = new Checkers(plan, 2 * (plan.faults.slow > 0 ? plan.slowMs : 10));
    this.#registry = { version: 1, config: configOf(plan, plan.maxConcurrency) };
    this.#clients = plan.clients.map(({ weight }, i) => {
      return new Client(`c${i}`, weight, this.#registry, {
        clock,
        random: this.#random.fork(),
        upstream: this.#upstream,
        checkers: this.checkers,
        faults,
        send: (report, answered) => this.#send(report, answered),
        log: (text) => this.#log(text),
      });
    });
  }

  #log(text: string): void {
    this.#say(`${this.clock.nowMs - START_MS} ${text}`);
  }

  run(): void {
    const { clock, plan } = this;
    plan.clients.forEach(({ bursts, jobs }, i) => {
      for (let burst = 0; burst < bursts; burst++) {
        clock.after(this.#random.between(0, plan.calmAfterMs), () => this.#clients[i]!.add(jobs));
      }
    });
    for (let ms = CHAOS_MS; ms < plan.calmAfterMs; ms += CHAOS_MS) clock.after(ms, () => this.#misbehave());
    clock.after(plan.calmAfterMs, () => this.#calmDown());
    const endMs = START_MS + plan.calmAfterMs + PATIENCE_MS + SLOWNESS * plan.leastMs;
    while (!this.#isOver && clock.nowMs < endMs && clock.step());
    const left = this.#clients.map((client) => client.left);
    must(
      left.every((jobs) => jobs === 0),
      "every job is done after the faults",
      () => left.join(),
    );
    must(this.#isOver, "a governor without work comes to rest", () => `on disk: ${this.#disk.kept}`);
  }

  /** What the governor knows, for whoever looks for the cause. */
  text(): string {
    const state = this.#governor?.state;
    return state === undefined ? "no governor" : JSON.stringify({ ...state, latencies: 0, clients: [...state.clients.values()] });
  }

  #loss(probability: number): boolean {
    return !this.#isCalm && this.#chaos.chance(probability);
  }

  /** Carries a message, perhaps late, twice or not at all. */
  #carry(client: string, lost: number, run: () => void): void {
    if (client === this.#cutOff && this.clock.nowMs < this.#cutOffUntilMs) return;
    const { faults, slowMs } = this.plan;
    const times = this.#loss(faults.twice) ? 2 : 1;
    for (let i = 0; i < times; i++) {
      if (this.#loss(lost)) continue;
      const most = this.#loss(faults.slow) ? slowMs : DELAY_MS_MAX;
      this.clock.after(this.#chaos.between(1, most), run);
    }
  }

  #send(report: Report, answered: (grant: Grant) => void): void {
    const { reportLost, answerLost } = this.plan.faults;
    this.messages++;
    const { client } = report;
    this.#carry(client, reportLost, () => {
      this.#current()?.exchange(report, (grant) => this.#carry(client, answerLost, () => answered(grant)));
    });
  }

  #tell({ client, life, grant }: Push): void {
    this.messages++;
    this.#log(`push ${life} ${grant.epoch}.${grant.number} calls=${grant.calls}`);
    this.#carry(client, this.plan.faults.pushLost, () => this.#clients.find(({ name }) => name === client)?.take(life, grant));
  }

  /** The governor that answers, loaded if there is none; null while it is down. */
  #current(): Governor | null {
    const { clock } = this;
    if (this.#governor !== null || clock.nowMs < this.#downUntilMs) return this.#governor;
    this.#governor = new Governor({
      clock,
      random: this.#random.fork(),
      disk: this.#disk,
      boot: this.plan.isNamed ? `p${this.#process}` : "",
      tell: (push) => this.#tell(push),
      observe: (governor, command, before, out, grant) => this.checkers.stepped(governor, command, before, out, grant, clock.nowMs),
      commitFails: () => this.#loss(this.plan.faults.commitFails),
      die: (governor) => {
        if (governor === this.#governor) this.#kill("the governor dies in a commit");
      },
      leaves: (grant) => this.checkers.left(grant),
    });
    this.#log(`loads epoch=${this.#governor.state.epoch} learns=${this.#governor.state.learnUntilMs > clock.nowMs}`);
    this.checkers.born(this.#governor, clock.nowMs);
    return this.#governor;
  }

  #misbehave(): void {
    const { faults, origins } = this.plan;
    const { clock } = this;
    if (this.#isCalm) return;
    if (this.#loss(faults.governorDies)) this.#kill("the governor dies");
    if (this.plan.isNamed && this.#loss(faults.processDies)) {
      this.#kill("the process dies");
      this.#process++;
      for (const client of this.#clients) client.die(true);
      this.#upstream.abortAll();
    }
    if (this.#loss(faults.clientDies)) this.#chaos.pick(this.#clients).die(false);
    const untilMs = clock.nowMs + this.#chaos.between(50, 2_500);
    if (this.#loss(faults.cutOff) && clock.nowMs >= this.#cutOffUntilMs) {
      this.#cutOff = this.#chaos.pick(this.#clients).name;
      this.#cutOffUntilMs = clock.nowMs + this.#chaos.between(1_000, CUT_OFF_MS_MAX);
      this.#log(`${this.#cutOff} is cut off`);
    }
    if (this.#loss(faults.outage)) {
      this.#log(`all origins are away until ${untilMs - START_MS}`);
      for (let origin = 0; origin < origins; origin++) this.#upstream.takeDown(origin, untilMs);
    }
    if (this.#loss(faults.originDies)) this.#upstream.takeDown(this.#chaos.between(0, origins - 1), untilMs);
    if (this.#loss(faults.gate)) this.#upstream.gateUntilMs = untilMs;
    if (this.#loss(faults.slowdown)) {
      this.#upstream.factor = this.#chaos.between(2, 8);
      clock.at(untilMs, () => {
        this.#upstream.factor = 1;
      });
    }
    if (this.#loss(faults.config)) this.#configure();
  }

  #kill(why: string): void {
    this.#log(why);
    if (this.#governor !== null) this.#governor.isDead = true;
    this.#governor = null;
    this.#downUntilMs = this.clock.nowMs + this.#chaos.between(0, 400);
  }

  /** Somebody changes the upstream; clients learn of it one by one. */
  #configure(): void {
    const max = this.#chaos.chance(0.1)
      ? null
      : this.#chaos.between(Math.ceil(this.plan.capacity / 4), Math.ceil(this.plan.capacity * 1.3));
    this.#registry = { version: this.#registry.version + 1, config: configOf(this.plan, max) };
    const registry = this.#registry;
    this.#log(`maxConcurrency ${max}`);
    for (const client of this.#clients) {
      this.clock.after(this.#chaos.between(0, REGISTRY_MS_MAX), () => {
        if (registry.version > client.registry.version) client.registry = registry;
      });
    }
  }

  #calmDown(): void {
    this.#log("calm");
    this.#isCalm = true;
    this.#upstream.restore();
    this.#cutOffUntilMs = 0;
    // What was said and done before it takes its time to be felt.
    this.clock.after(REGISTRY_MS_MAX, () => this.#watch());
  }

  #watch(): void {
    const { clock, plan } = this;
    this.checkers.calm(this.#governor, this.#clients, this.#upstream.open.size, clock.nowMs);
    const isDone = this.#clients.every(({ left, inUse }) => left === 0 && inUse === 0);
    if (isDone && plan.measureMs > 0 && !this.#isMeasured) this.#measure();
    // Nobody wakes a governor that died when nobody needs it any more.
    const isAtRest = this.#governor === null || !isBusyOn(this.#disk);
    if (isDone && isAtRest && (plan.measureMs === 0 || this.#isMeasured)) this.#isOver = true;
    else clock.after(WATCH_MS, () => this.#watch());
  }

  /** Endless work for every client, and a look at who gets what. */
  #measure(): void {
    const { clock, plan } = this;
    this.#log("measures");
    this.#isMeasured = true;
    const measure = new Measure(clock, this.#clients, plan, () => this.#governor);
    measure.begin();
    clock.after(plan.measureMs, () => {
      const shares = measure.end();
      this.#log(`shares ${shares}`);
    });
  }
}

const isBusyOn = ({ kept }: Disk): boolean => kept === null || (JSON.parse(kept) as { isBusy: boolean }).isBusy;

function configOf(plan: Plan, maxConcurrency: number | null): Config {
  return {
    name: "api",
    origins: Array.from({ length: plan.origins }, (_, i) => `http://origin-${i}`),
    maxConcurrency,
    ratePerSecond: plan.ratePerSecond,
    tokensPerMinute: null,
    reserve: { tokens: 0 },
    usage: { tokens: null },
    timeoutMs: 30_000,
    idempotency: "none",
    retry: { maxAttempts: 5 },
    headers: {},
  };
}

/** Runs one seed. `print` gets every line of its log. */
export function runSeed(seed: number, print: (line: string) => void = () => undefined): Outcome {
  const { world, ...outcome } = runWorld(
    seed,
    print,
    (say) => new World(seed, say),
    (broken) => print(broken.text()),
  );
  return { ...outcome, calls: world.checkers.calls, messages: world.messages };
}
