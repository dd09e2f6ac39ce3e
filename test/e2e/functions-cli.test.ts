/** Functions from the command line, as a user has them: files, flags, exit codes, and a server found by its folder. */
import { execFile, type ExecFileException } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { readCommand } from "../../client/cli/functions/arguments.ts";
import { call, resultsOf } from "./api.ts";
import { useStage } from "./stage.ts";
import { answerAfter } from "./upstream.ts";

const ROOT = join(import.meta.dirname, "../..");
const DROVER = join(ROOT, "client/cli/drover.ts");

const stage = useStage(answerAfter(0));
const folder = mkdtempSync(join(tmpdir(), "drover-cli-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function run(args: readonly string[], env: Readonly<Record<string, string>> = {}, stdin = ""): Promise<Ran> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [DROVER, ...args],
      { env: { ...process.env, ...env } },
      (error: ExecFileException | null, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      },
    );
    child.stdin!.end(stdin);
  });
}

const drover = (...args: readonly string[]): Promise<Ran> => run(["functions", ...args, "--data", stage.dataDir]);

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

test("a function in TypeScript with an import is bundled, put, listed, invoked, run by a goal and deleted", async () => {
  file("units.ts", "export const double = (n: number): number => n * 2;");
  const path = file(
    "double.ts",
    `import { double } from "./units.ts";
     const handler = async (input: { n: number }, ctx: { log(...values: unknown[]): void }): Promise<number> => { ctx.log("n", input.n); return double(input.n); };
     export default handler;`,
  );
  const put = await drover("put", "double", path, "--cpu-ms", "50", "--memory-mib", "8");
  expect(put).toMatchObject({ code: 0, stderr: "" });
  expect(put.stdout).toMatch(/double {2}new version[\s\S]*[0-9a-f]{64}[\s\S]*initialised in \d+ ms/);
  expect((await drover("put", "double", path, "--cpu-ms", "50", "--memory-mib", "8")).stdout).toContain("was there already");
  expect((await drover("list")).stdout).toMatch(/NAME +VERSION[\s\S]*double +[0-9a-f]{12} +snapshot/);
  expect(await drover("invoke", "double", '{"n": 21}')).toEqual({ code: 0, stdout: "42\n", stderr: "info: n 21\n" });
  const tasks = [{ key: "a", run: { function: "double", input: { n: 4 } } }];
  const goal = await call<{ id: string }>(stage.drover, "POST", "/v1/goals", { sealed: true, tasks });
  const { tasks: ended, end } = await resultsOf(stage.drover, goal.id);
  expect([ended[0]!.result?.body, end.status]).toEqual([8, "succeeded"]);
  expect(await drover("delete", "double")).toMatchObject({ code: 0, stdout: "double is deleted.\n" });
  expect((await drover("list")).stdout).toBe("There are no functions yet.\n");
});

test("what fails says why, with places in the author's own file", async () => {
  const thrower = file(
    "thrower.ts",
    "interface Input { readonly n: number }\n\nconst handler = ({ n }: Input): never => {\n  throw new RangeError(`too far: ${n}`);\n};\nexport default handler;",
  );
  await drover("put", "thrower", thrower);
  const thrown = await drover("invoke", "thrower", '{"n": 1}');
  expect(thrown).toMatchObject({ code: 1, stdout: "" });
  expect(thrown.stderr).toMatch(/function_error: RangeError: too far: 1\n[\s\S]*thrower\.ts:4:/);
  const broken = await drover("put", "broken", file("broken.ts", "\nthrow new TypeError('no table');\nexport default () => 1;"));
  expect(broken.code).toBe(1);
  expect(broken.stderr).toMatch(/TypeError: no table\n[\s\S]*broken\.ts:2:/);
  const unknown = await drover("put", "unknown", file("unknown.ts", 'import "not-installed-anywhere";\nexport default () => 1;'));
  expect(unknown.stderr).toMatch(/cannot be bundled:[\s\S]*not-installed-anywhere[\s\S]*unknown\.ts:1:/);
  expect((await drover("put", "absent", join(folder, "absent.ts"))).stderr).toContain("there is no file");
});

test("flags and words that are not understood are refused with exit code 2, and a server that is not there with 1", async () => {
  for (const line of ["", "functions", "functions push a b", "functions put a", "functions list --loud", "functions list --cpu-ms 5"]) {
    expect(() => readCommand(line.split(" ").filter(Boolean)), line).toThrow("See npm run drover -- --help.");
  }
  expect(await run(["functions", "put", "a"])).toMatchObject({ code: 2, stdout: "" });
  expect((await run(["functions", "list", "--data", folder])).stderr).toContain("Start one with npm start");
  expect(await run(["functions", "list", "--url", "http://127.0.0.1:9"])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("--token") as string,
  });
  expect((await run(["functions", "list", "--url", "http://127.0.0.1:9", "--token", "t"])).stderr).toContain("cannot be reached");
  const { url, token } = stage.drover;
  expect(await run(["functions", "list", "--json"], { DROVER_URL: url, DROVER_TOKEN: token })).toMatchObject({ code: 0, stderr: "" });
  expect(readCommand(["--help"])).toBeNull();
});
