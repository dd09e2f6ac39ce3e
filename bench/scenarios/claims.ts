/**
 * `claims`: workers outside pull 20,000 tasks in batches of 100 over HTTP and
 * settle them; beside it a bare Worker that hands out the same inputs and takes
 * the same results, with one durable write for each request.
 */
import { api, newGoal } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { timedMs } from "../stats.ts";

const TASKS = 20_000;
const BATCH = 100;
const WORKERS = 4;
const LEASE_MS = 60_000;

interface Claims {
  readonly claims: readonly { readonly taskId: string; readonly attempt: number; readonly input: { readonly n: number } }[];
}

/** Asks one after the other, each worker for itself, until nothing is left. */
interface Source {
  readonly claim: () => Promise<Claims>;
  readonly settle: (body: string) => Promise<void>;
}

const inputOf = (n: number): object => ({ n, page: `/page/${n}`, note: "as long as an input is in real life, more or less" });

async function drain({ claim, settle }: Source): Promise<void> {
  let settled = 0;
  const work = async (): Promise<void> => {
    for (;;) {
      const { claims } = await claim();
      if (claims.length === 0) return;
      const settlements = claims.map(({ taskId, attempt, input }) => ({ taskId, attempt, result: { n: input.n, verdict: "good" } }));
      await settle(JSON.stringify({ settlements }));
      settled += claims.length;
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
  if (settled !== TASKS) throw new Error(`${settled} of ${TASKS} tasks were settled`);
}

async function goalOfWork(stage: Stage): Promise<string> {
  const { id } = await newGoal(stage.drover());
  const tasks = Array.from({ length: TASKS }, (_, n) => ({ work: { queue: "bench", input: inputOf(n) } }));
  await api(stage.drover(), "POST", `/v1/goals/${id}/tasks`, JSON.stringify({ tasks }));
  return id;
}

function droverOf(stage: Stage, id: string): Source {
  const path = `/v1/goals/${id}/claims`;
  const request = JSON.stringify({ queue: "bench", max: BATCH, leaseMs: LEASE_MS });
  return {
    claim: () => api<Claims>(stage.drover(), "POST", path, request),
    settle: async (body) => {
      await api(stage.drover(), "POST", `${path}/settle`, body);
    },
  };
}

export async function claims(stage: Stage, rounds: number): Promise<Figure[]> {
  const ours: number[] = [];
  const claimed: number[] = [];
  const floors: number[] = [];
  for (let round = -1; round < rounds; round++) {
    const object = `claims-${round}`;
    await stage.floor.keep("text", "created", object);
    const floorMs = await timedMs(() =>
      drain({
        claim: () => stage.floor.handOut<Claims>(object, BATCH, TASKS),
        settle: (body) => stage.floor.keep("text", body, object),
      }),
    );
    const id = await goalOfWork(stage);
    const ms = await timedMs(() => drain(droverOf(stage, id)));
    const other = droverOf(stage, await goalOfWork(stage));
    const claimMs = await timedMs(() => drain({ claim: other.claim, settle: async () => undefined }));
    // The first round is for the compilers.
    if (round < 0) continue;
    ours.push(ms);
    claimed.push(claimMs);
    floors.push(floorMs);
  }
  const perSecond = (ms: number): number => (TASKS * 1_000) / ms;
  const name = `${WORKERS} workers, ${BATCH} at a time`;
  return [
    figure("claims", `${name}: claimed`, "/s", claimed.map(perSecond), { least: 1_000 }),
    figure("claims", `${name}: claimed and settled`, "/s", ours.map(perSecond), { least: 1_000 }),
    figure("claims", "floor: handed out and kept, two writes a batch", "/s", floors.map(perSecond)),
    figure(
      "claims",
      "claimed and settled / floor of the same round",
      "x",
      ours.map((ms, i) => floors[i]! / ms),
    ),
  ];
}
