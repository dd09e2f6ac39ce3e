/** The functions that benchmarks run, bundled as their author would: two of about 1 KB, and one each of 97 and 545 KB. */
import { fileURLToPath } from "node:url";
import { build, stop } from "esbuild";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

const LIBRARIES = `
import _ from "lodash";
import { addDays, differenceInCalendarDays, format, formatDistance, parseISO } from "date-fns";

const START = parseISO("2026-01-01");
`;

/** A day, counted from the first of 2026, and some groups. */
const WORK = `
  const due = addDays(START, n % 365);
  const groups = _.groupBy(_.range(20), (i) => (i * n) % 3);
  const found = { n, due: format(due, "yyyy-MM-dd"), days: differenceInCalendarDays(due, START), in: formatDistance(due, START), sizes: _.mapValues(groups, "length") };
`;

/** It does a little of everything, calls once, and would tell if it had run before. */
const BUSY = `${LIBRARIES}
let runs = 0;

export default async ({ n }, ctx) => {
  runs++;
  const { status, body } = await ctx.call("real", { path: "/d1/" + n });
  ${WORK}
  return { ...found, isAnswered: status === 200 && body.ok, runs };
};
`;

/** What a fan-out is mostly made of: it looks at its input, decides, and answers. It would tell if it had run before. */
const DECIDES = `
const QUEUES = { outage: "on-call", billing: "accounts", bug: "triage", question: "support" };
const HOURS = { urgent: 1, high: 4, normal: 24, low: 72 };
const KINDS = Object.keys(QUEUES);
const LEVELS = Object.keys(HOURS);

let runs = 0;

function levelOf(kind, customers) {
  if (kind === "outage") return customers > 100 ? "urgent" : "high";
  if (kind === "question") return "low";
  return LEVELS[Math.min(LEVELS.length - 1, 1 + Math.floor(10 / (customers + 1)))];
}

export default ({ n, kind = KINDS[n % KINDS.length], customers = (n * 37) % 250, tags = [] }) => {
  runs++;
  if (!Object.hasOwn(QUEUES, kind)) throw new TypeError("there is no queue for " + kind);
  const level = levelOf(kind, customers);
  const labels = [kind, level, ...tags.map((tag) => tag.trim().toLowerCase())].filter((label) => label !== "");
  return { n, queue: QUEUES[kind], level, dueInHours: HOURS[level], labels, title: "[" + level + "] " + kind + " #" + n, isFirst: runs === 1 };
};
`;

/** For its size it computes long: ten regular expressions compiled at run time, their matches, and a sort by language. */
const PARSES = `
const HEADS = [["h1", 1], ["h2", 2], ["h3", 3], ["li", 4], ["p", 5]];
const ENTITIES = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'" };

const decoded = (text) => text.replace(/&(?:amp|lt|gt|quot|#39);/g, (entity) => ENTITIES[entity]);

function textsIn(page, tag) {
  const found = [];
  for (const [, text] of page.matchAll(new RegExp("<" + tag + "[^>]*>([^<]*)</" + tag + ">", "g"))) found.push(decoded(text.trim()));
  return found;
}

export default ({ n }) => {
  const page = "<h1>Page " + n + "</h1><p>One &amp; two</p><ul><li>first</li><li>second &lt;3</li></ul>";
  const facts = [];
  for (const [tag, rank] of HEADS) for (const text of textsIn(page, tag)) facts.push({ tag, rank, text, words: text.split(/\\s+/).length });
  facts.sort((a, b) => b.rank - a.rank || a.text.localeCompare(b.text));
  return { n, facts, words: facts.reduce((sum, { words }) => sum + words, 0) };
};
`;

const DATED = `${LIBRARIES}
export default ({ n }) => {
  ${WORK}
  return found;
};
`;

/** All of zod is in it, because it looks at all of it. */
const CHECKED = `import * as z from "zod";
${LIBRARIES}
const KINDS = Object.keys(z).length;
const Found = z.object({ n: z.number().int(), due: z.string().regex(/^\\d{4}-\\d{2}-\\d{2}$/), days: z.number().min(0).max(365), in: z.string(), sizes: z.record(z.string(), z.number()) });

export default ({ n }) => {
  ${WORK}
  return { ...Found.parse(found), kinds: KINDS };
};
`;

type Format = "esm" | "iife";

/** The text of a function as one script: a module as `PUT /v1/functions` takes it, or an expression that sets `bundled`. */
async function bundledAs(source: string, format: Format): Promise<string> {
  const options = { bundle: true, format, globalName: "bundled", target: "es2022", minify: true, write: false } as const;
  const { outputFiles } = await build({ ...options, stdin: { contents: source, resolveDir: ROOT } });
  return outputFiles[0]!.text;
}

/** The function of 97 KB that awaits one host call. */
export async function busyBundle(): Promise<string> {
  const bundle = await bundledAs(BUSY, "esm");
  await stop();
  return bundle;
}

export interface Bundle {
  /** The size of the module, such as `97 KB`, and what tells it from others of that size. */
  readonly name: string;
  readonly module: string;
  readonly script: string;
}

async function bundleOf(source: string, what = ""): Promise<Bundle> {
  const module = await bundledAs(source, "esm");
  return { name: `${Math.max(1, Math.round(module.length / 1_024))} KB${what}`, module, script: await bundledAs(source, "iife") };
}

/** Functions of three sizes that ask nothing of their host; of the smallest one more, that computes most of its time. */
export async function bundlesOfAllSizes(): Promise<Record<"decides" | "parses" | "dated" | "checked", Bundle>> {
  const bundles = {
    decides: await bundleOf(DECIDES),
    parses: await bundleOf(PARSES, " that computes"),
    dated: await bundleOf(DATED),
    checked: await bundleOf(CHECKED),
  };
  await stop();
  return bundles;
}

/** What the function of 97 KB answers to `n`, worked out without it. */
export function isRight(n: number, answer: unknown): boolean {
  const { due, days, sizes, isAnswered, runs, ...rest } = answer as Record<string, unknown>;
  const atMs = Date.UTC(2026, 0, 1 + (n % 365));
  const counted: Record<string, number> = {};
  for (let i = 0; i < 20; i++) counted[(i * n) % 3] = (counted[(i * n) % 3] ?? 0) + 1;
  const isCounted = JSON.stringify(sizes) === JSON.stringify(counted);
  const isDue = due === new Date(atMs).toISOString().slice(0, 10) && days === n % 365;
  return rest["n"] === n && isDue && isCounted && isAnswered === true && runs === 1;
}
