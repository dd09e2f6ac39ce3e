/** One run of a function outside any goal, in an executor's process. It is cut where nobody holds it any more. */
import { RpcTarget } from "cloudflare:workers";
import type { LoneEnd, LoneRun } from "../../shared/rpc-functions.ts";
import type { HomeRpc, LoneRpc } from "../../shared/rpc-processes.ts";
import { Cutoff } from "../kit/cutoff.ts";
import type { Program } from "../sandbox/programs.ts";
import { programFor, runAlone } from "../sandbox/lone.ts";
import { envThrough } from "./env.ts";
import { Lease } from "./lease.ts";

export class Lone extends RpcTarget implements LoneRpc {
  readonly #run: LoneRun;
  readonly #cutoff = new Cutoff();
  readonly #loading: Promise<Program>;
  readonly #over = Promise.withResolvers<void>();
  #isRunning = false;

  constructor(run: LoneRun, home: HomeRpc, loader: WorkerLoader) {
    super();
    this.#run = run;
    const lease = new Lease(home);
    void this.over.then(() => lease.end());
    this.#loading = programFor(envThrough(lease.home, loader), run);
    this.#loading.catch(() => undefined);
  }

  /** Resolves when nothing of it goes on. */
  get over(): Promise<void> {
    return this.#over.promise;
  }

  ready(): Promise<string | null> {
    return this.#loading.then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
  }

  async run(): Promise<LoneEnd> {
    const program = await this.#loading;
    this.#isRunning = true;
    try {
      return await runAlone(program, this.#run, this.#cutoff);
    } finally {
      this.#over.resolve();
    }
  }

  async cut(): Promise<void> {
    this.#cutoff.end("its caller has gone");
  }

  [Symbol.dispose](): void {
    this.#cutoff.end("its caller has gone");
    if (!this.#isRunning) this.#over.resolve();
  }
}
