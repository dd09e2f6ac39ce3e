/** `/v1/functions`: the registry of functions, and one invocation of one outside any goal. */
import { concatBytes, hexOf } from "../../../shared/bytes.ts";
import { type Failure, failure } from "../../../shared/errors.ts";
import {
  FUNCTION_BUNDLE_BYTES_MAX,
  FUNCTION_CPU_MS_DEFAULT,
  FUNCTION_CPU_MS_MAX,
  FUNCTION_MEMORY_BYTES_DEFAULT,
  FUNCTION_MEMORY_BYTES_MAX,
} from "../../../shared/limits.ts";
import { type EngineName, ENGINES, FUNCTION_NAME, type FunctionLimits, type FunctionVersion } from "../../../shared/protocol/function.ts";
import { err, ok } from "../../../shared/result.ts";
import type { Answer } from "../../../shared/rpc.ts";
import { admitBundle, type Admitted } from "../../sandbox/admit.ts";
import { cacheImage, imageStub, letGo } from "../../sandbox/images.ts";
import { type EdgeContext, tenantStub } from "../context.ts";
import { readBody } from "../middleware/body.ts";
import { Query } from "../query.ts";
import { json, problem, respond } from "../reply.ts";

const MIB = 1_048_576;
const MODULE_TYPE = /^(?:text|application)\/javascript$/;
const NAME_SHOWN_CHARS = 64;

const nameOf = (c: EdgeContext): string => c.req.param("name") ?? "";

/** Times as the rest of the interface has them. */
function shown({ limits, createdAtMs, ...version }: FunctionVersion): object {
  const { cpuMs, memoryBytes } = limits;
  return { ...version, limits: { cpuMs, memoryMiB: memoryBytes / MIB }, createdAt: new Date(createdAtMs).toISOString() };
}

/** The body: one ES module. */
async function readModule(request: Request): Promise<Answer<{ readonly bundle: string; readonly bytes: Uint8Array }>> {
  const read = await readBody(request);
  if (!read.ok) return read;
  const { bytes, mediaType } = read.value;
  if (!MODULE_TYPE.test(mediaType)) {
    return err(
      failure(
        "invalid_request",
        `the Content-Type must be text/javascript, and the body one bundled ES module; it is "${mediaType.slice(0, NAME_SHOWN_CHARS)}"`,
      ),
    );
  }
  if (bytes.byteLength === 0) return err(failure("invalid_request", "the body is empty; send one bundled ES module"));
  if (bytes.byteLength > FUNCTION_BUNDLE_BYTES_MAX) {
    const detail = `the bundle has ${bytes.byteLength} bytes, and ${FUNCTION_BUNDLE_BYTES_MAX} are the most; minify it, or leave the sources out of its source map`;
    return err(failure("payload_too_large", detail));
  }
  try {
    return ok({ bundle: new TextDecoder("utf-8", { fatal: true, ignoreBOM: false }).decode(bytes), bytes });
  } catch {
    return err(failure("invalid_request", "the bundle is not valid UTF-8"));
  }
}

interface Settings {
  readonly engine: EngineName;
  readonly limits: FunctionLimits;
}

function readSettings(c: EdgeContext): Answer<Settings> {
  const query = new Query(c);
  const engine = query.choice("engine", ENGINES) ?? ENGINES[0];
  const cpuMs = query.integer("cpuMs", 1, FUNCTION_CPU_MS_MAX, FUNCTION_CPU_MS_DEFAULT);
  const memoryMiB = query.integer("memoryMiB", 1, FUNCTION_MEMORY_BYTES_MAX / MIB, FUNCTION_MEMORY_BYTES_DEFAULT / MIB);
  const fault = query.failure();
  return fault === null ? ok({ engine, limits: { cpuMs, memoryBytes: memoryMiB * MIB } }) : err(fault);
}

/** What the version is called: equal bundles with equal settings are one version. */
async function versionOf({ engine, limits }: Settings, bytes: Uint8Array): Promise<string> {
  const head = new TextEncoder().encode(`${engine} ${limits.cpuMs} ${limits.memoryBytes}\n`);
  return hexOf(new Uint8Array(await crypto.subtle.digest("SHA-256", concatBytes([head, bytes]))));
}

/** Bundle and image are stored before the registry names them, so that no task finds a version without them. */
async function store(c: EdgeContext, version: FunctionVersion, bundle: string, { image }: Admitted): Promise<Response> {
  const kept = imageStub(c.env, version.version);
  await kept.putBundle(version.version, bundle);
  if (image !== null) {
    await kept.putImage(image);
    cacheImage(version.version, image);
  }
  const put = await tenantStub(c.env).putFunction(version);
  return respond(put, (value) => {
    if (value.replaced !== null) letGo(c.env, value.replaced);
    const body = JSON.stringify(shown(value.function));
    return value.created ? json(body, 201, { location: `/v1/functions/${version.name}` }) : json(body);
  });
}

function badName(name: string): Failure {
  const detail = `a function's name has 1 to 63 of a-z, 0-9, '_', '.', '-', and begins with a letter or a digit; "${name.slice(0, NAME_SHOWN_CHARS)}" does not`;
  return failure("invalid_request", detail);
}

export async function putFunction(c: EdgeContext): Promise<Response> {
  const name = nameOf(c);
  if (!FUNCTION_NAME.test(name)) return problem(badName(name));
  const settings = readSettings(c);
  if (!settings.ok) return problem(settings.error);
  const module = await readModule(c.req.raw);
  if (!module.ok) return problem(module.error);
  const { bundle, bytes } = module.value;
  const { engine, limits } = settings.value;
  const version = await versionOf(settings.value, bytes);
  const known = await tenantStub(c.env).getFunction(name);
  if (known.ok && known.value.version === version) return json(JSON.stringify(shown(known.value)));
  const admitted = await admitBundle(c.env, engine, bundle, limits);
  if (!admitted.ok) return problem(admitted.error);
  const { snapshotBytes, initMs } = admitted.value;
  const bundleBytes = bytes.byteLength;
  return store(c, { name, version, engine, limits, bundleBytes, snapshotBytes, initMs, createdAtMs: Date.now() }, bundle, admitted.value);
}

export async function listFunctions(c: EdgeContext): Promise<Response> {
  return respond(await tenantStub(c.env).listFunctions(), (all) => json(JSON.stringify({ items: all.map(shown), nextCursor: null })));
}

/** One function with its live state, which lists leave out. */
export async function getFunction(c: EdgeContext): Promise<Response> {
  const tenant = tenantStub(c.env);
  const [version, live] = await Promise.all([tenant.getFunction(nameOf(c)), tenant.functionLive(nameOf(c))]);
  return respond(version, (value) => json(JSON.stringify({ ...shown(value), live })));
}

export async function deleteFunction(c: EdgeContext): Promise<Response> {
  return respond(await tenantStub(c.env).deleteFunction(nameOf(c)), ({ replaced }) => {
    if (replaced !== null) letGo(c.env, replaced);
    return new Response(null, { status: 204 });
  });
}
