/**
 * Completes package-lock.json: every optional package that a locked package
 * names gets an entry, whether or not the registry at hand has it. npm leaves
 * such entries out when a mirror lacks another platform's binaries, and then
 * `npm ci` refuses the lock file. Run it after `npm install` where
 * test/tidy.test.ts says that the lock file is incomplete.
 */
import { readFileSync, writeFileSync } from "node:fs";

const SYSTEMS = {
  android: "android",
  darwin: "darwin",
  freebsd: "freebsd",
  linux: "linux",
  openharmony: "openharmony",
  win32: "win32",
  windows: "win32",
};
const PROCESSORS = { arm: "arm", arm64: "arm64", x64: "x64", 64: "x64", ia32: "ia32", ppc64: "ppc64", riscv64: "riscv64", s390x: "s390x" };

/** What a package's name says of where it runs: `@x/binding-linux-arm64-musl`. */
function platformOf(name) {
  const words = name.split("/").at(-1).split("-");
  const system = words.find((word) => word in SYSTEMS);
  const processor = words.find((word) => word in PROCESSORS);
  if (system === undefined || processor === undefined) return null;
  const libc = words.includes("musl") ? ["musl"] : words.includes("gnu") ? ["glibc"] : undefined;
  return { cpu: [PROCESSORS[processor]], ...(libc && { libc }), os: [SYSTEMS[system]] };
}

const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));
const packages = lock.packages;
let added = 0;
for (const [path, entry] of Object.entries({ ...packages })) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const nested = `${path}/node_modules/${name}`;
    const top = `node_modules/${name}`;
    if (packages[nested]?.version === version || packages[top]?.version === version) continue;
    const platform = platformOf(name);
    if (platform === null) continue;
    packages[packages[top] === undefined ? top : nested] = { version, ...platform, dev: true, optional: true };
    added++;
  }
}
const sorted = Object.fromEntries(Object.entries(packages).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync("package-lock.json", `${JSON.stringify({ ...lock, packages: sorted }, null, 2)}\n`);
console.log(`added ${added} entries`);
