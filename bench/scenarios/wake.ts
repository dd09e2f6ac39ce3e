/** `wake`: the first answer of a goal that is not in memory, with all its tasks on disk, over its second answer. */
import type { Drover } from "../../client/cli/server/child.ts";
import { api, bodyOf, newGoal, putUpstream, viewGoal } from "../goals.ts";
import { type Figure, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { timedMs } from "../stats.ts";
import { pathsOf } from "../workload.ts";

const TASKS_A_REQUEST = 5_000;

/** A goal with `tasks` tasks, none of which runs. */
async function prepared(drover: Drover, tasks: number): Promise<string> {
  const { id } = await newGoal(drover);
  await api(drover, "POST", `/v1/goals/${id}/pause`);
  for (let request = 0; request < tasks / TASKS_A_REQUEST; request++) {
    await api(drover, "POST", `/v1/goals/${id}/tasks`, bodyOf(pathsOf(TASKS_A_REQUEST, 0), `wake-${request}`));
  }
  return id;
}

export async function wake(stage: Stage, rounds: number): Promise<Figure[]> {
  await putUpstream(stage);
  const sizes = [
    { tasks: 5_000, target: 50 },
    { tasks: 50_000, target: 400 },
  ];
  const goals = await Promise.all(sizes.map(({ tasks }) => prepared(stage.drover(), tasks)));
  const other = await newGoal(stage.drover());
  const times: number[][] = sizes.map(() => []);
  for (let round = 0; round < rounds; round++) {
    await stage.restart();
    // The Worker itself is warm before the clock starts; only the goal is not.
    for (let i = 0; i < 5; i++) await viewGoal(stage.drover(), other.id);
    for (const [i, id] of goals.entries()) {
      const cold = await timedMs(() => viewGoal(stage.drover(), id));
      const warm = await timedMs(() => viewGoal(stage.drover(), id));
      times[i]!.push(cold - warm);
    }
  }
  return sizes.map(({ tasks, target }, i) => figure("wake", `first answer with ${tasks} tasks`, "ms", times[i]!, target));
}
