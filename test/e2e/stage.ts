/** A started server with one registered upstream, for the tests of one file; everything is ended after them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";
import { type Drover, startDrover } from "../../client/cli/server/child.ts";
import { call } from "./api.ts";
import { type Answer, startUpstream, type Upstream } from "./upstream.ts";

export interface Stage {
  drover: Drover;
  upstream: Upstream;
  dataDir: string;
  /** What the servers have said on standard error so far. */
  said: string;
  /** Kills everything with SIGKILL and starts it again on the same folder and port. */
  crash(): Promise<void>;
}

/** Call it at the top of a test file; the parts are there once the tests run. */
export function useStage(answer: Answer, settings: object = {}, executors?: number): Stage {
  const stage = { crash, said: "" } as Stage;
  const onStderr = (text: string): void => void (stage.said += text);
  async function crash(): Promise<void> {
    await stage.drover.kill("all");
    const port = Number(new URL(stage.drover.url).port);
    stage.drover = await startDrover({ dataDir: stage.dataDir, port, executors, onStderr });
  }
  beforeAll(async () => {
    stage.dataDir = mkdtempSync(join(tmpdir(), "drover-e2e-"));
    stage.upstream = await startUpstream(answer);
    stage.drover = await startDrover({ dataDir: stage.dataDir, executors, onStderr });
    await call(stage.drover, "PUT", "/v1/upstreams/real", { origin: stage.upstream.origin, ...settings });
  });
  afterAll(async () => {
    await stage.drover.stop();
    await stage.upstream.close();
    rmSync(stage.dataDir, { recursive: true, force: true });
  });
  return stage;
}
