/** `/v1/upstreams`: the registry of backends. Values of headers that look secret go in and never come out. */
import { type Fault, failure } from "../../../shared/errors.ts";
import { parseUpstream, type Upstream } from "../../../shared/protocol/upstream.ts";
import { outdateAll } from "../coalesce/writes.ts";
import { type EdgeContext, flightStub, governorStub, tenantStub } from "../context.ts";
import { readJsonObject } from "../middleware/body.ts";
import { json, problem, respond } from "../reply.ts";

const MASK = "***";
const SECRET_HEADER = /auth|cookie|token|secret|key|passw|credential/i;

const nameOf = (c: EdgeContext): string => c.req.param("name") ?? "";

/** A single origin is shown as it is mostly given. */
function shown({ origins, hedge, ...upstream }: Upstream): object {
  const at = origins.length === 1 ? { origin: origins[0] } : { origins };
  const headers = Object.entries(upstream.headers).map(([name, value]) => [name, SECRET_HEADER.test(name) ? MASK : value]);
  return { ...at, ...upstream, headers: Object.fromEntries(headers), hedge: hedge ?? false };
}

/** What a GET shows and a PUT sends back would replace the secret by its mask. */
function maskFaults(upstream: Upstream): Fault[] {
  return Object.entries(upstream.headers)
    .filter(([name, value]) => value === MASK && SECRET_HEADER.test(name))
    .map(([name]) => ({ pointer: `/headers/${name}`, detail: "is the mask that GET shows; give the value itself" }));
}

export async function putUpstream(c: EdgeContext): Promise<Response> {
  const request = await readJsonObject(c.req.raw);
  if (!request.ok) return problem(request.error);
  const parsed = parseUpstream(nameOf(c), request.value.value);
  const errors = parsed.ok ? maskFaults(parsed.value) : parsed.error;
  if (!parsed.ok || errors.length > 0) return problem(failure("invalid_request", "the upstream is not valid; see errors", { errors }));
  const upstream = parsed.value;
  const put = await tenantStub(c.env).putUpstream(upstream);
  if (put.ok) await outdateAll((shard) => flightStub(c.env, shard));
  return respond(put, ({ created }) => {
    const body = JSON.stringify(shown(upstream));
    return created ? json(body, 201, { location: `/v1/upstreams/${upstream.name}` }) : json(body);
  });
}

export async function listUpstreams(c: EdgeContext): Promise<Response> {
  const upstreams = await tenantStub(c.env).listUpstreams();
  return respond(upstreams, (all) => json(JSON.stringify({ items: all.map(shown), nextCursor: null })));
}

/** One upstream with its live state. Lists leave that out: asking must not wake an object for each line. */
export async function getUpstream(c: EdgeContext): Promise<Response> {
  const upstream = await tenantStub(c.env).getUpstream(nameOf(c));
  if (!upstream.ok) return problem(upstream.error);
  const live = await governorStub(c.env, upstream.value.name).live();
  return json(JSON.stringify({ ...shown(upstream.value), live }));
}

export async function deleteUpstream(c: EdgeContext): Promise<Response> {
  const deleted = await tenantStub(c.env).deleteUpstream(nameOf(c));
  if (deleted.ok) await outdateAll((shard) => flightStub(c.env, shard));
  return respond(deleted, () => new Response(null, { status: 204 }));
}
