/** Where a proxied call goes: `/v1/proxy/{upstream}/{path…}`, with every character of the path as it was given. */
import { failure } from "../../../shared/errors.ts";
import { PATH_CHARS_MAX } from "../../../shared/limits.ts";
import { DOT_SEGMENT, PATH, UPSTREAM_NAME } from "../../../shared/protocol/task.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";

const TARGET = /^https?:\/\/[^/]*\/v1\/proxy\/([^/?#]*)([^#]*)/;
const SHOWN_CHARS_MAX = 64;

export interface Target {
  readonly upstream: string;
  /** Path and query, beginning with `/`. */
  readonly path: string;
}

/** Reads the request's URL as it stands: a decoded path could not be put together again. */
export function targetOf(url: string): Answer<Target> {
  const [, upstream = "", rest = ""] = TARGET.exec(url) ?? [];
  if (!UPSTREAM_NAME.test(upstream)) {
    return err(failure("not_found", `there is no upstream "${upstream.slice(0, SHOWN_CHARS_MAX)}"; call /v1/proxy/{upstream}/{path}`));
  }
  const path = rest.startsWith("/") ? rest : `/${rest}`;
  if (path.length > PATH_CHARS_MAX) return err(failure("invalid_request", `the path must have at most ${PATH_CHARS_MAX} characters`));
  if (!PATH.test(path)) return err(failure("invalid_request", "the path must be printable ASCII; percent-encode everything else"));
  // What would be read as a slash on the way must not hide a segment.
  if (path.includes("\\")) return err(failure("invalid_request", "the path must not have a backslash; write it as %5C"));
  if (DOT_SEGMENT.test(path.split("?", 1)[0]!))
    return err(failure("invalid_request", 'the path must not have a segment "." or "..", encoded or not'));
  return ok({ upstream, path });
}
