/** `absorb`: 5,000 tasks, 1.3 MB of JSON, durable before the answer; beside it a bare Worker that keeps the same bytes. */
import { api, bodyOf, newGoal, putUpstream } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage, Transport } from "../stage.ts";
import { medianOf, pause, shuffled, timedMs } from "../stats.ts";
import { pathsOf } from "../workload.ts";

const TASKS = 5_000;
const PAIRS_A_ROUND = 15;
/** Until both sides run compiled code. */
const WARM_UP = 20;
const TRANSPORTS: readonly Transport[] = ["text", "bytes"];
/** What one side leaves behind must not meet the next. */
const REST_MS = 20;

/** `old`: bytes into an object that has taken all the earlier ones, whose files need no growing any more. */
const SIDES = ["text", "bytes", "old", "ack"] as const;
type Times = Readonly<Record<(typeof SIDES)[number], number>>;

async function timesOf(stage: Stage, round: string): Promise<Times> {
  const drover = stage.drover();
  const { id } = await newGoal(drover);
  // Paused, so that no call of this goal disturbs the next pair.
  await api(drover, "POST", `/v1/goals/${id}/pause`);
  const body = bodyOf(pathsOf(TASKS, 0), round);
  // The floor's object is as young as the goal's: created, and written to once or twice.
  for (const transport of TRANSPORTS) await stage.floor.keep(transport, "created", `${round}-${transport}`);
  const times = { text: 0, bytes: 0, old: 0, ack: 0 };
  for (const side of shuffled(SIDES)) {
    times[side] = await timedMs(async () => {
      if (side === "old") return stage.floor.keep("bytes", body, "old");
      if (side !== "ack") return stage.floor.keep(side, body, `${round}-${side}`);
      const { accepted } = await api<{ accepted: number }>(drover, "POST", `/v1/goals/${id}/tasks`, body);
      if (accepted !== TASKS) throw new Error(`only ${accepted} of ${TASKS} tasks were accepted`);
    });
    await pause(REST_MS);
  }
  await api(drover, "POST", `/v1/goals/${id}/cancel`);
  return times;
}

export async function absorb(stage: Stage, rounds: number): Promise<Figure[]> {
  await putUpstream(stage);
  const warm: Times[] = [];
  for (let pair = 0; pair < WARM_UP; pair++) warm.push(await timesOf(stage, `warm-${pair}`));
  // Chosen before the measurement: the faster of each pair would be the luckier one.
  const medians = TRANSPORTS.map((transport) => medianOf(warm.slice(WARM_UP / 2).map((times) => times[transport])));
  const transport = TRANSPORTS[medians.indexOf(Math.min(...medians))]!;
  const pairs: Times[] = [];
  for (let pair = 0; pair < rounds * PAIRS_A_ROUND; pair++) pairs.push(await timesOf(stage, `pair-${pair}`));
  const column = (of: (times: Times) => number): number[] => pairs.map(of);
  return [
    figure(
      "absorb",
      "durable ack of 5,000 tasks",
      "ms",
      column(({ ack }) => ack),
    ),
    figure(
      "absorb",
      `floor: the same bytes in a new object, as ${transport}`,
      "ms",
      column((times) => times[transport]),
    ),
    figure(
      "absorb",
      "ack / floor of the same pair",
      "x",
      column((times) => times.ack / times[transport]),
      2,
    ),
    figure(
      "absorb",
      "ack / the same bytes in an object that is reused",
      "x",
      column((times) => times.ack / times.old),
    ),
  ];
}
