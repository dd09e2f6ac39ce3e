/** Packages that only a benchmark needs, put aside on first use: they bring native code, and nobody else should wait for it. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The folder that has the package, or why there is none. */
export function installed(name: string, version: string): { readonly folder: string } | { readonly why: string } {
  const folder = join(tmpdir(), `drover-rivals-${name}-${version}`);
  if (existsSync(join(folder, "node_modules", name))) return { folder };
  mkdirSync(folder, { recursive: true });
  try {
    execFileSync("npm", ["install", "--no-audit", "--no-fund", "--prefix", folder, `${name}@${version}`], {
      cwd: folder,
      stdio: ["ignore", "ignore", "pipe"],
    });
    return { folder };
  } catch (error) {
    return { why: `npm install ${name}@${version} failed: ${String(error).slice(0, 300)}` };
  }
}
