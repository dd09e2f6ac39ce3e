/**
 * What lies between the coordinator and its executors: delays, messages that
 * get lost, streams that break, reports that come twice or after their reader
 * has died. Messages of one stream keep their order.
 */
import type { Send } from "../../durable-objects/goal/core/recorder.ts";
import { isHedgeable } from "../../durable-objects/goal/core/hedges.ts";
import { reserveOf } from "../../durable-objects/goal/core/reserve.ts";
import type { Refusal } from "../../durable-objects/goal/core/settle.ts";
import { CALLS, NOTHING } from "../../shared/policy/account.ts";
import type { Clock } from "./clock.ts";
import { type Call, type Item, type Job, type Link, Run } from "./executor.ts";
import type { Faults } from "./faults.ts";
import type { Random } from "./random.ts";
import { FunctionRun, type RunSurroundings } from "./runs/executor.ts";
import type { Shell } from "./shell.ts";

interface Surroundings {
  readonly clock: Clock;
  readonly random: Random;
  readonly faults: () => Faults;
  readonly ledger: (call: Call) => void;
  /** The incarnation that answers now; null while the object is down. */
  readonly current: () => Shell | null;
  readonly log: (text: string) => void;
  /** What functions do, where the batch is of one. */
  readonly runs: Pick<RunSurroundings, "faults" | "calls" | "ledger">;
}

const DELAY_MS_MAX = 8;
/** How long an abort takes to arrive at the upstream. */
const ABORT_MS = 20;

export class Network {
  readonly #around: Surroundings;
  readonly #runs = new Map<number, Run | FunctionRun>();
  readonly #lost = new Set<number>();

  constructor(around: Surroundings) {
    this.#around = around;
  }

  /** Carries a batch to an executor. */
  send(shell: Shell, send: Send): void {
    const { clock, random, log } = this.#around;
    const faults = this.#around.faults();
    const { tasks, backups } = shell.state;
    const firstAtMs = send.isBackup === true ? backups.get(send.tasks[0]!)!.firstAtMs : undefined;
    const items = send.tasks.map((task): Item => ({
      task,
      attempt: tasks.attempt[task]!,
      timeoutMs: Math.max(1, tasks.timeoutMs[task]! - (firstAtMs === undefined ? 0 : clock.nowMs - firstAtMs)),
      isHedgeable: isHedgeable(shell.state, task),
      own: reserveOf(shell.state, task, NOTHING)[CALLS]!,
    }));
    const afterMs = shell.state.admissions[send.upstream]?.lease.hedgeAfterMs ?? null;
    const hedge = send.hedges === undefined || afterMs === null ? undefined : { afterMs, most: send.hedges.left };
    if (random.chance(faults.sendLost)) {
      log(`batch ${send.batch} never arrives`);
      return this.#tellLost(shell, send.batch);
    }
    if (random.chance(faults.overloaded)) {
      log(`batch ${send.batch} is refused`);
      return this.#tellLost(shell, send.batch, "overloaded");
    }
    const isUnheard = random.chance(faults.unreachable);
    const link = this.#linkOf(shell, send.batch, isUnheard);
    if (isUnheard) this.#tellLost(shell, send.batch, "unreachable");
    const { batch, upstream, lanes } = send;
    const job = { batch, upstream, permitMs: shell.permitMs(upstream), lanes, items, hedge, firstAtMs };
    const run = this.#runOf(shell, job, link);
    this.#runs.set(send.batch, run);
    clock.after(random.between(0, DELAY_MS_MAX), () => run.start());
    if (random.chance(faults.executorDies)) {
      clock.after(random.between(0, 100), () => {
        log(`executor of batch ${send.batch} dies`);
        run.die();
        this.#tellLost(shell, send.batch);
      });
    }
  }

  #runOf(shell: Shell, job: Job, link: Link): Run | FunctionRun {
    const { clock, random, faults, ledger, runs, current } = this.#around;
    const isFunction = shell.state.upstreams[job.upstream]!.name.startsWith("run:");
    if (!isFunction) return new Run(job, { clock, random: random.fork(), faults, ledger, link });
    const ask: RunSurroundings["ask"] = (command, answer) => {
      clock.after(random.between(0, DELAY_MS_MAX), () => current()?.ask({ id: null, command, answer }));
    };
    return new FunctionRun(job, { clock, random: random.fork(), link, ask, ...runs });
  }

  abort(shell: Shell, attempts: readonly (readonly [number, number, number])[]): void {
    const { clock, random } = this.#around;
    for (const [batch, task] of attempts) {
      const run = this.#runs.get(batch);
      clock.after(random.between(0, DELAY_MS_MAX), () => {
        run?.abort(task);
        clock.after(ABORT_MS, () => (shell.isDead ? undefined : shell.aborted(shell.state.tasks.upstream[task]!)));
      });
    }
  }

  /** Tells the batches at an upstream that their permits were renewed. */
  renew(shell: Shell, upstream: number): void {
    const { clock, random } = this.#around;
    const permitMs = shell.permitMs(upstream);
    if (permitMs === null) return;
    for (const run of this.#runs.values()) {
      if (run.job.upstream !== upstream || run.job.permitMs === null) continue;
      clock.after(random.between(0, DELAY_MS_MAX), () => run.renew(permitMs));
    }
  }

  /** The coordinator has died: its executors die with it, or go on and report to the next incarnation. */
  disconnect(): void {
    const { random } = this.#around;
    for (const run of this.#runs.values()) if (!random.chance(this.#around.faults().outlives)) run.die();
    this.#runs.clear();
  }

  /** Calls that are open at an upstream, of batches that nobody has given up. */
  openAt(upstream: number): number {
    let open = 0;
    for (const [batch, run] of this.#runs)
      if (run instanceof Run && run.job.upstream === upstream && !this.#lost.has(batch)) open += run.open;
    return open;
  }

  #tellLost(shell: Shell, batch: number, refusal?: Refusal): void {
    const { clock, random } = this.#around;
    this.#lost.add(batch);
    if (refusal === undefined && random.chance(this.#around.faults().silent)) return;
    clock.after(random.between(0, 200), () => {
      if (!shell.isDead) shell.close(batch, refusal);
    });
  }

  #linkOf(shell: Shell, batch: number, isUnheard: boolean): { lines: (lines: readonly string[]) => void; closed: () => void } {
    const { clock, random } = this.#around;
    const breaks = random.chance(this.#around.faults().streamBreaks);
    const breaksAtMs = clock.nowMs + random.between(0, 100);
    let isTold = false;
    let lastMs = 0;
    const later = (run: () => void): void => {
      lastMs = Math.max(lastMs, clock.nowMs + random.between(0, DELAY_MS_MAX));
      clock.at(lastMs, run);
    };
    const isBroken = (): boolean => isUnheard || shell.isDead || (breaks && clock.nowMs >= breaksAtMs);
    return {
      lines: (lines) => {
        if (!isBroken()) return later(() => (shell.isDead ? undefined : shell.take(lines)));
        if (!shell.isDead && !isTold && !isUnheard) this.#tellLost(shell, batch);
        isTold = true;
        this.#settle(lines);
      },
      closed: () => {
        if (!isBroken()) later(() => (shell.isDead ? undefined : shell.close(batch)));
      },
    };
  }

  /** Reports to whatever incarnation answers; twice where the first answer got lost. */
  #settle(lines: readonly string[]): void {
    const { clock, random, current, log } = this.#around;
    const times = random.chance(this.#around.faults().reportTwice) ? 2 : 1;
    for (let i = 0; i < times; i++) {
      clock.after(random.between(0, 500), () => {
        log(`${lines.length} results by settle`);
        current()?.take(lines);
      });
    }
  }
}
