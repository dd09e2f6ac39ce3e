/**
 * Isolates that want answers to equal calls, and the shard where they meet.
 * What they say gets lost, they go with and without a word, and the shard
 * forgets everything. What must hold is checked against what was really called.
 */
import { newFlights } from "../../../durable-objects/flight/core/state.ts";
import { apply, type Request, type What } from "../../../durable-objects/flight/core/step.ts";
import { FLIGHT_FAILURES_MAX, FLIGHT_LEASE_MS } from "../../../shared/limits-flight.ts";
import { readKeyOf, reads } from "../../../shared/protocol/flight.ts";
import type { Clock } from "../clock.ts";
import type { Random } from "../random.ts";
import { must } from "../violation.ts";

/** Two of the keys read what is written, the third may write itself. */
const RESOURCE = "r";
const KEYS = [readKeyOf(RESOURCE, "a"), readKeyOf(RESOURCE, "b"), "c"];
const WRITES_MAX = 12;
const START_SPREAD_MS = 6_000;
const CALM_AFTER_MS = 12_000;

interface Answer {
  readonly key: string;
  /** When its head came. */
  readonly headAtMs: number;
  readonly freshMs: number;
  /** Writes to its resource that had been answered when its call began. */
  readonly writes: number;
}

interface Seat {
  readonly id: number;
  readonly key: string;
  readonly joinedAtMs: number;
  /** Writes to its resource that had been answered by then. */
  readonly writes: number;
  /** How many calls failed while it waited. */
  failures: number;
  state: "joining" | "waiting" | "leading" | "ended";
  isDead: boolean;
}

type Said = Request<Seat, Answer>;

export class Calls {
  calls = 0;
  shared = 0;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #say: (text: string) => void;
  readonly #startMs: number;
  readonly #faults: {
    readonly lost: number;
    readonly death: number;
    readonly silent: number;
    readonly crash: number;
    readonly fails: number;
  };
  #shard = newFlights<Seat, Answer>(FLIGHT_LEASE_MS);
  /** Who leads, as the shard has said, and when it was last heard of. */
  readonly #leaders = new Map<string, { readonly seat: Seat; heardAtMs: number }>();
  #seats: Seat[] = [];
  #writes = 0;

  constructor(clock: Clock, random: Random, say: (text: string) => void) {
    this.#clock = clock;
    this.#random = random;
    this.#say = say;
    this.#startMs = clock.nowMs;
    this.#faults = {
      lost: random.some(0.3),
      death: random.some(0.3),
      silent: random.some(1),
      crash: random.some(0.05),
      fails: random.some(0.8),
    };
    say(JSON.stringify(this.#faults));
  }

  /** `chance`: of the writes alone. */
  start(chance: Random): void {
    for (let i = this.#random.between(2, 40); i > 0; i--) this.#clock.after(this.#random.between(0, START_SPREAD_MS), () => this.#join());
    const writes = chance.chance(0.5) ? WRITES_MAX : 0;
    for (let i = writes; i > 0; i--) this.#clock.after(chance.between(0, CALM_AFTER_MS), () => this.#write());
    this.#tick();
  }

  #write(): void {
    this.#say(`${RESOURCE} is written`);
    this.#writes++;
    // A new call may begin beside the one that is under way.
    for (const key of KEYS) if (reads(key, RESOURCE)) this.#leaders.delete(key);
    this.#tell({ kind: "written", resource: RESOURCE });
  }

  #writesOf(key: string): number {
    return reads(key, RESOURCE) ? this.#writes : 0;
  }

  get #isCalm(): boolean {
    return this.#clock.nowMs >= this.#startMs + CALM_AFTER_MS;
  }

  #isLost(): boolean {
    return !this.#isCalm && this.#random.chance(this.#faults.lost);
  }

  #tick(): void {
    if (!this.#isCalm && this.#random.chance(this.#faults.crash)) this.#crash();
    this.#tell({ kind: "tick" });
    if (this.#clock.nowMs < this.#startMs + 2 * CALM_AFTER_MS) this.#clock.after(FLIGHT_LEASE_MS / 2, () => this.#tick());
  }

  /** The shard forgets all; those who were on the line with it ask again. */
  #crash(): void {
    this.#say("the shard is lost");
    this.#shard = newFlights(FLIGHT_LEASE_MS);
    this.#leaders.clear();
    for (const seat of [...this.#seats]) {
      if (seat.state !== "waiting") continue;
      seat.state = "ended";
      this.#join(seat.key);
    }
  }

  #join(key = this.#random.pick(KEYS)): void {
    const about = { id: this.#seats.length, key, joinedAtMs: this.#clock.nowMs, writes: this.#writesOf(key) };
    const seat: Seat = { ...about, failures: 0, state: "joining", isDead: false };
    this.#seats.push(seat);
    seat.state = "waiting";
    this.#tell({ kind: "join", key, place: seat });
    if (this.#isCalm || !this.#random.chance(this.#faults.death)) return;
    this.#clock.after(this.#random.between(1, 4_000), () => this.#die(seat));
  }

  #die(seat: Seat): void {
    if (seat.state === "ended") return;
    seat.isDead = true;
    this.#say(`${seat.id} is gone`);
    if (!this.#random.chance(this.#faults.silent)) this.#tell({ kind: "leave", key: seat.key, place: seat });
  }

  /** What reaches the shard. */
  #tell(said: Said): boolean {
    const { nowMs } = this.#clock;
    const waiting = "key" in said ? this.#waitingFor(said.key) : [];
    const leader = "key" in said ? this.#leaders.get(said.key) : undefined;
    const isLeader = "key" in said && leader?.seat === said.place;
    if (isLeader) leader.heardAtMs = nowMs;
    if (isLeader && said.kind === "end" && said.how === "failed") for (const seat of waiting) this.#countFailure(seat);
    // What ends, or begins to land, is led by nobody any more.
    if (isLeader && said.kind !== "renew" && said.kind !== "join") this.#leaders.delete((said as { key: string }).key);
    const { news, holds } = apply(this.#shard, nowMs, said);
    for (const { key, place, what } of news) this.#hear(key, place, what);
    if (isLeader && said.kind === "end" && said.how === "alone") {
      for (const seat of waiting) must(seat.state !== "waiting", "what is for one alone lets all go at once", () => `${seat.id} waits on`);
    }
    this.#recount();
    return holds;
  }

  /** Who waits for the call that is under way, and not for an earlier one whose answer still comes. */
  #waitingFor(key: string): Seat[] {
    return [...(this.#shard.flights.get(key)?.waiting ?? [])].filter(({ isDead }) => !isDead);
  }

  #countFailure(seat: Seat): void {
    seat.failures++;
    must(seat.failures <= FLIGHT_FAILURES_MAX, "nobody waits for one failure after the other", () => `${seat.id} saw ${seat.failures}`);
  }

  #hear(key: string, seat: Seat, what: What<Answer>): void {
    const { nowMs } = this.#clock;
    this.#say(`${nowMs - this.#startMs} ${seat.id} ${key} ${what.kind}`);
    must(seat.state === "waiting" && seat.key === key, "who is told something waits for it", () => `${seat.id} is ${seat.state}`);
    if (what.kind === "lead") {
      const before = this.#leaders.get(key);
      const isSilent = before === undefined || before.seat.isDead || nowMs - before.heardAtMs >= FLIGHT_LEASE_MS;
      must(isSilent, "one leads, unless it is not heard of for as long as its lease", () => `${seat.id} beside ${before!.seat.id}`);
      this.#leaders.set(key, { seat, heardAtMs: nowMs });
      seat.state = "leading";
      if (!seat.isDead) this.#call(seat);
      return;
    }
    seat.state = "ended";
    if (what.kind === "alone") return;
    this.shared++;
    const { answer, ageMs } = what;
    must(answer.key === key, "an answer is that of an equal call", () => `${key} was answered by ${answer.key}`);
    must(answer.writes >= seat.writes, "an answer is not from before a write that its asker may have seen", () => `${seat.id} ${key}`);
    const isInTime = ageMs === null ? answer.headAtMs >= seat.joinedAtMs : nowMs < answer.headAtMs + answer.freshMs;
    must(isInTime, "an answer is not older than the question, unless it is fresh", () => `${seat.id} ${JSON.stringify(answer)}`);
  }

  /** The leader's own call. */
  #call(seat: Seat): void {
    const { key } = seat;
    const writes = this.#writesOf(key);
    this.calls++;
    this.#renewLater(seat);
    this.#clock.after(this.#random.between(10, 8_000), () => {
      if (seat.isDead) return;
      const headAtMs = this.#clock.nowMs;
      if (this.#random.chance(this.#isCalm ? 0 : this.#faults.fails)) {
        seat.state = "ended";
        if (!this.#isLost()) this.#tell({ kind: "end", key, place: seat, how: this.#random.chance(0.8) ? "failed" : "alone" });
        return;
      }
      const freshMs = this.#random.chance(0.3) ? this.#random.between(100, 3_000) : 0;
      const isWanted = !this.#isLost() && this.#tell({ kind: "landed", key, place: seat, freshMs });
      this.#clock.after(this.#random.between(0, 2_000), () => {
        if (seat.isDead) return;
        seat.state = "ended";
        // Fresh for so long from when its head came; what is kept is kept when it is whole.
        const answer = { key, headAtMs, freshMs: freshMs + this.#clock.nowMs - headAtMs, writes };
        if (isWanted && !this.#isLost()) this.#tell({ kind: "give", key, place: seat, answer, bytes: 100 });
      });
    });
  }

  #renewLater(seat: Seat): void {
    this.#clock.after(FLIGHT_LEASE_MS / 4, () => {
      if (seat.state !== "leading" || seat.isDead) return;
      if (!this.#isLost()) this.#tell({ kind: "renew", key: seat.key, place: seat });
      this.#renewLater(seat);
    });
  }

  #recount(): void {
    const { flights, landing, waiting, kept, keptBytes } = this.#shard;
    const all = [...flights.values(), ...[...landing.values()].map(({ flight }) => flight)];
    const counted = all.reduce((sum, flight) => sum + flight.waiting.size, 0);
    must(counted === waiting, "who waits is counted", () => `${waiting} instead of ${counted}`);
    const bytes = [...kept.values()].reduce((sum, one) => sum + one.bytes, 0);
    must(bytes === keptBytes, "what is kept is counted", () => `${keptBytes} instead of ${bytes}`);
  }

  judgeEnd(): void {
    for (const seat of this.#seats) {
      must(
        seat.isDead || seat.state === "ended",
        "everybody is told something in the end",
        () => `${seat.id} for ${seat.key} is ${seat.state}`,
      );
    }
    const { flights, landing, waiting } = this.#shard;
    must(flights.size + landing.size + waiting === 0, "nothing is left of flights that are over", () => [...flights.keys()].join(", "));
  }
}
