/** `npm run example:facts`: 100 pages become facts side by side, and one task that comes after them all adds them up. */
import { join } from "node:path";
import { call, type Caller } from "../../client/cli/demo/api.ts";
import { row } from "../../client/cli/demo/progress.ts";
import { pathOf, townOf } from "../site.ts";
import { deploy, runExample, runGoal } from "../stage.ts";
import type { Region } from "./reduce.ts";

const TOWNS = 100;
const towns = Array.from({ length: TOWNS }, (_, page) => page);

const GOAL = {
  name: "facts of the atlas",
  sealed: true,
  tasks: [
    ...towns.map((page) => ({ key: pathOf(page), run: { function: "page-to-facts", input: { path: pathOf(page) } } })),
    { key: "total", after: towns.map(pathOf), run: { function: "reduce" } },
  ],
};

async function totalOf(drover: Caller, goalId: string): Promise<Readonly<Record<string, Region>>> {
  const { items } = await call<{ items: { result?: { body: Readonly<Record<string, Region>> } }[] }>(
    drover,
    "GET",
    `/v1/goals/${goalId}/tasks?limit=1000`,
  );
  return items.at(-1)?.result?.body ?? {};
}

await runExample(`A map and a reduce, over ${TOWNS} pages`, async ({ drover }) => {
  await deploy(drover, "page-to-facts", join(import.meta.dirname, "page-to-facts.ts"));
  await deploy(drover, "reduce", join(import.meta.dirname, "reduce.ts"));
  const goal = await runGoal(drover, GOAL);
  const total = await totalOf(drover, goal.id);
  for (const [name, { towns: many, population, oldest }] of Object.entries(total)) {
    row(name, `${many} towns, ${population} people, the oldest is ${oldest?.title} of ${oldest?.founded}`);
  }
  const people = Object.values(total).reduce((sum, { population }) => sum + population, 0);
  const expected = towns.reduce((sum, page) => sum + townOf(page).population, 0);
  return [
    ...(goal.status === "succeeded" ? [] : [`status of the goal: ${goal.status}`]),
    ...(people === expected ? [] : [`people in all: ${people}, not ${expected}`]),
  ];
});
