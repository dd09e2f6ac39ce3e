/** Upstreams whose calls may be made a second time. */
import { liveOf, proxied, until, upstream } from "./proxy-kit.ts";

const SPEC = { hedge: { quantile: 0.95, budgetPercent: 50 } };
/** After so many calls it is known what takes long. */
const WARM = 120;

/** An upstream whose governor lets calls be hedged, which the gate has heard of. */
export async function hedgedUpstream(name: string, more: object = {}): Promise<void> {
  await upstream(name, { ...SPEC, coalesce: "off", ...more });
  for (let made = 0; made < WARM; made += 12) {
    const calls = Array.from({ length: 12 }, (_, i) => proxied("GET", `${name}/delay/1?n=${made + i}`));
    for (const response of await Promise.all(calls)) await response.text();
  }
  await until("the governor knows", async () => {
    await (await proxied("GET", `${name}/delay/1`)).text();
    return (await liveOf(name)).hedgeAfterMs !== null;
  });
  // Each gate hears of it with its next permits.
  const calls = Array.from({ length: 48 }, (_, i) => proxied("GET", `${name}/delay/1?again=${i}`));
  for (const response of await Promise.all(calls)) await response.text();
  await new Promise((resolve) => setTimeout(resolve, 300));
}
