/** A site to try the examples on: an atlas of made-up towns, which link to one another. It counts how often each page is asked for. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export const PAGES = 2_000;
/** Each page links to so many that no other page has to link to, */
const CHILDREN = 8;
/** and to so many that others link to as well. */
const CROSS_LINKS = 4;
const ANSWER_MS = 5;
const REGIONS = ["north", "east", "south", "west"] as const;

export interface Site {
  readonly origin: string;
  /** How often each path was asked for. */
  readonly hits: ReadonlyMap<string, number>;
  close(): void;
}

export const pathOf = (page: number): string => (page === 0 ? "/" : `/towns/${page}`);

const linkTo = (page: number): string => `<a href="${pathOf(page)}#about">Town ${page}</a>`;

/** What the page says of its town. */
export function townOf(page: number): { readonly region: string; readonly founded: number; readonly population: number } {
  return { region: REGIONS[page % REGIONS.length]!, founded: 900 + ((page * 37) % 1_000), population: 500 + ((page * 7_919) % 90_000) };
}

function htmlOf(page: number): string {
  const { region, founded, population } = townOf(page);
  const children = Array.from({ length: CHILDREN }, (_, n) => page * CHILDREN + n + 1).filter((child) => child < PAGES);
  const others = Array.from({ length: CROSS_LINKS }, (_, n) => (page * 31 + n * 577 + 1) % PAGES);
  const facts = Object.entries({ region, founded, population }).map(([name, value]) => `<dt>${name}</dt><dd>${value}</dd>`);
  return [
    `<!doctype html><title>Town ${page}</title><h1>Town ${page}</h1><dl>${facts.join("")}</dl>`,
    `<p>Near: ${[...children, ...others].map(linkTo).join(", ")}.</p>`,
    `<p><a href="/">Home</a>, <a href="mailto:atlas@example.com">write to us</a>, <a href="https://example.com/">friends</a></p>`,
  ].join("\n");
}

/** Listens on a free port of this machine. */
export async function startSite(): Promise<Site> {
  const hits = new Map<string, number>();
  const pages = new Map(Array.from({ length: PAGES }, (_, page) => [pathOf(page), page]));
  const server = createServer((request, response) => {
    const path = request.url ?? "/";
    hits.set(path, (hits.get(path) ?? 0) + 1);
    const page = pages.get(path);
    const html = page === undefined ? "<!doctype html><title>Not here</title>" : htmlOf(page);
    setTimeout(() => response.writeHead(page === undefined ? 404 : 200, { "content-type": "text/html" }).end(html), ANSWER_MS);
  });
  server.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    hits,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
