/** `absorb`: 5,000 tasks, 1.3 MB of JSON, durable before the answer; beside it a bare Worker that keeps the same bytes. */
import { api, bodyOf, newGoal } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { pause, shuffled, timedMs } from "../stats.ts";
import { pathsOf } from "../workload.ts";

const PAIRS_A_ROUND = 5;
const WARM_UP = 5;

export async function absorb(stage: Stage, rounds: number): Promise<Figure[]> {
  const drover = stage.drover();
  const ackMs: number[] = [];
  const floorMs: number[] = [];
  const ratios: number[] = [];
  const paths = pathsOf(5_000, 0);
  for (let pair = 0; pair < WARM_UP + rounds * PAIRS_A_ROUND; pair++) {
    const { id } = await newGoal(drover);
    // Paused, so that no call of this goal disturbs the next pair.
    await api(drover, "POST", `/v1/goals/${id}/pause`);
    const body = bodyOf(paths, `absorb-${pair}`);
    const times: Record<string, number> = {};
    const sides = {
      text: () => stage.floor.keep("text", body),
      bytes: () => stage.floor.keep("bytes", body),
      ack: () => api(drover, "POST", `/v1/goals/${id}/tasks`, body),
    };
    for (const [name, work] of shuffled(Object.entries(sides))) {
      times[name] = await timedMs(work);
      await pause(20);
    }
    await api(drover, "POST", `/v1/goals/${id}/cancel`);
    if (pair < WARM_UP) continue;
    const floor = Math.min(times["text"]!, times["bytes"]!);
    ackMs.push(times["ack"]!);
    floorMs.push((times["text"]! + times["bytes"]!) / 2);
    ratios.push(times["ack"]! / floor);
  }
  return [
    figure("absorb", "durable ack of 5,000 tasks", "ms", ackMs),
    figure("absorb", "floor: the same bytes in one object", "ms", floorMs),
    figure("absorb", "ack / the faster floor of the same pair", "x", ratios, 2),
  ];
}
