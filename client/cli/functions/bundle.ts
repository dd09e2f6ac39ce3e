/** A function's source as the server takes it: one ES module with everything it imports, and a map to its sources. */
import { basename, dirname, resolve } from "node:path";
import { existsSync } from "node:fs";
import { Refusal } from "../server/refusal.ts";

export async function bundleFunction(file: string): Promise<string> {
  // npm runs a script at the root of its package, and says where it was called.
  const path = resolve(process.env["INIT_CWD"] ?? "", file);
  if (!existsSync(path)) throw new Refusal(`there is no file ${path}`);
  const { build, formatMessages } = await import("esbuild");
  const built = await build({
    entryPoints: [basename(path)],
    absWorkingDir: dirname(path),
    bundle: true,
    write: false,
    format: "esm",
    target: "es2023",
    minify: true,
    // Neither a browser nor Node.js, with what both have in common.
    platform: "neutral",
    mainFields: ["module", "main"],
    conditions: ["worker", "browser"],
    define: { "process.env.NODE_ENV": '"production"' },
    sourcemap: "inline",
    sourcesContent: false,
    legalComments: "none",
    logLevel: "silent",
  }).catch(async (error: { readonly errors?: Parameters<typeof formatMessages>[0] }) => {
    if (error.errors === undefined) throw error;
    const messages = await formatMessages(error.errors, { kind: "error", color: false });
    throw new Refusal(`${file} cannot be bundled:\n${messages.join("").trimEnd()}`);
  });
  return built.outputFiles[0]!.text;
}
