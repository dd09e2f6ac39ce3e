/** Fetches one page of a site and spawns a task for each page that it links to; the goal has one task a path, so each page is fetched once. */
import type { Handler, TaskSpec } from "drover/functions";

interface Page {
  readonly path: string;
  readonly status: number;
  readonly title: string;
  readonly links: number;
}

const LINK = /<a\s[^>]*?href="([^"]*)"/gi;
const TITLE = /<title>([^<]*)/i;
/** Stands for the site, whose real origin is the upstream's business. */
const SITE = "http://site";

/** Paths of the same site that the page links to. */
function pathsIn(html: string, path: string): string[] {
  const paths = new Set<string>();
  for (const [, href] of html.matchAll(LINK)) {
    const url = URL.parse(href!, SITE + path);
    if (url?.origin === SITE) paths.add(url.pathname + url.search);
  }
  return [...paths];
}

const crawl: Handler<{ readonly path: string }, Page> = async ({ path }, ctx) => {
  const { status, body } = await ctx.call<string>("site", { path });
  // A link that leads nowhere is found, and no fault of the crawl.
  if (status !== 200) return { path, status, title: "", links: 0 };
  const paths = pathsIn(body, path);
  const tasks = paths.map((to): TaskSpec => ({ key: to, run: { function: "crawl", input: { path: to } } }));
  // Those that the goal has already are joined.
  await ctx.spawn(tasks);
  return { path, status, title: TITLE.exec(body)?.[1] ?? "", links: paths.length };
};

export default crawl;
