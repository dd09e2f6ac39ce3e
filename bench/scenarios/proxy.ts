/** `proxy`: how much later the first byte of a stream comes through Drover than directly; in turns, over connections that stay open. */
import { Agent } from "node:http";
import { type Chunks, chunksOf } from "../clients.ts";
import { declare } from "../goals.ts";
import { type Finding, figure } from "../report.ts";
import type { Stage } from "../stage.ts";
import { medianOf } from "../stats.ts";
import { withUpstream } from "../upstreams.ts";

const PAIRS = 200;
const PAIRS_FAST = 100;
const WARM_UP = 30;
const PATH = "/sse";

/** Whether Drover has a proxy: a route that is not there answers 404 or 405. */
export async function passesThrough(stage: Stage, upstream: string): Promise<boolean> {
  const { url, token } = stage.drover();
  const response = await fetch(`${url}/v1/proxy/${upstream}/d0/q`, { headers: { authorization: `Bearer ${token}` } });
  await response.text();
  return response.status !== 404 && response.status !== 405;
}

export function proxyOf(isFast: boolean): (stage: Stage) => Promise<Finding[]> {
  return (stage) =>
    withUpstream(async (upstream) => {
      const { url, token } = stage.drover();
      const scenario = "proxy";
      await declare(stage.drover(), "stream", { origin: upstream.origin });
      if (!(await passesThrough(stage, "stream"))) return [{ scenario, name: "first byte of a stream", skipped: "there is no proxy yet" }];
      const agent = new Agent({ keepAlive: true });
      const sides = [
        () => chunksOf(upstream.origin + PATH, {}, agent),
        () => chunksOf(`${url}/v1/proxy/stream${PATH}`, { authorization: `Bearer ${token}` }, agent),
      ] as const;
      const pairs: { direct: Chunks; proxied: Chunks }[] = [];
      for (let pair = -WARM_UP; pair < (isFast ? PAIRS_FAST : PAIRS); pair++) {
        const [direct, proxied] = [await sides[0](), await sides[1]()];
        if (proxied.status !== 200) throw new Error(`the proxy answered ${proxied.status}`);
        if (pair >= 0) pairs.push({ direct, proxied });
      }
      agent.destroy();
      const column = (of: (chunks: Chunks) => number, side: "direct" | "proxied"): number[] => pairs.map((pair) => of(pair[side]));
      const first = ({ firstMs }: Chunks): number => firstMs;
      const end = ({ endMs }: Chunks): number => endMs;
      const differenceMs = medianOf(column(first, "proxied")) - medianOf(column(first, "direct"));
      return [
        figure(scenario, "first byte through the proxy", "ms", column(first, "proxied")),
        figure(scenario, "first byte, direct", "ms", column(first, "direct")),
        figure(scenario, "difference of the medians", "ms", [differenceMs], 5),
        figure(scenario, "last byte through the proxy", "ms", column(end, "proxied")),
        figure(scenario, "last byte, direct", "ms", column(end, "direct")),
      ];
    });
}
