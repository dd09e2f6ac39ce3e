/** Maps a page to facts: fetches it, and returns what its list of definitions says. */
import type { Handler } from "drover/functions";

export interface Facts {
  readonly path: string;
  readonly title: string;
  readonly facts: Readonly<Record<string, string | number>>;
}

const TITLE = /<title>([^<]*)/i;
const FACT = /<dt>([^<]*)<\/dt>\s*<dd>([^<]*)<\/dd>/gi;

const valueOf = (text: string): string | number => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

const pageToFacts: Handler<{ readonly path: string }, Facts> = async ({ path }, ctx) => {
  const { status, body } = await ctx.call<string>("site", { path });
  if (status !== 200) throw new Error(`${path} answered ${status}`);
  const facts = [...body.matchAll(FACT)].map(([, name, value]) => [name!, valueOf(value!)] as const);
  return { path, title: TITLE.exec(body)?.[1] ?? path, facts: Object.fromEntries(facts) };
};

export default pageToFacts;
