/** Servers and folders that a test makes for itself; they are ended and removed after each. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach } from "vitest";
import { type Drover, type DroverOptions, startDrover } from "../../client/cli/server/child.ts";

export interface Servers {
  newFolder(): string;
  start(options: DroverOptions): Promise<Drover>;
}

/** Call it at the top of a test file. */
export function useServers(): Servers {
  const running: Drover[] = [];
  const folders: string[] = [];
  afterEach(async () => {
    await Promise.all(running.splice(0).map((drover) => drover.stop()));
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
  });
  return {
    newFolder() {
      const folder = mkdtempSync(join(tmpdir(), "drover-test-"));
      folders.push(folder);
      return folder;
    },
    async start(options) {
      const drover = await startDrover(options);
      running.push(drover);
      return drover;
    },
  };
}
