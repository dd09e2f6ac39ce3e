/**
 * Where calls go out. Deployed, that is `fetch`. The local server binds the
 * network itself, because Miniflare puts a Worker of its own between `fetch`
 * and the network, which doubles what a call costs.
 */
import { garbage } from "./garbage.ts";

export interface Network {
  fetch(url: string, init: RequestInit): Promise<Response>;
}

export const PLAIN_NETWORK: Network = { fetch: (url, init) => fetch(url, init) };

/** The binding NETWORK is the local server's; wrangler.toml has none. */
export function networkOf(env: object): Network | undefined {
  const bound = (env as { readonly NETWORK?: Network }).NETWORK;
  if (bound === undefined || garbage === null) return bound;
  return {
    fetch(url, init) {
      garbage!.called();
      return bound.fetch(url, init);
    },
  };
}
