/** Reduces the facts of all the tasks that it comes after to one table. */
import type { Handler } from "drover/functions";
import type { Facts } from "./page-to-facts.ts";

export interface Region {
  towns: number;
  population: number;
  oldest: { readonly title: string; readonly founded: number } | null;
}

const reduce: Handler<null, Readonly<Record<string, Region>>> = async (_, ctx) => {
  const regions: Record<string, Region> = {};
  // Without names: those in this task's `after`.
  for (const { result } of await ctx.results<Facts>()) {
    const { title, facts } = result!.body;
    const region = (regions[String(facts["region"])] ??= { towns: 0, population: 0, oldest: null });
    const founded = Number(facts["founded"]);
    region.towns++;
    region.population += Number(facts["population"]);
    if (region.oldest === null || founded < region.oldest.founded) region.oldest = { title, founded };
  }
  return regions;
};

export default reduce;
