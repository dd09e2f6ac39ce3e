/**
 * Runs before `npm start`, `npm run demo` and `npm test`: installs what the lock
 * file names if it is not there. It must run on Node 20 without any package, and
 * cost nothing noticeable when there is nothing to do.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../", import.meta.url));
/** The first Node that runs TypeScript and has everything the server uses. */
const NODE_MAJOR_MIN = 22;
const NODE_MINOR_MIN = 18;

function say(line) {
  process.stderr.write(`drover: ${line}\n`);
}

function packagesOf(path) {
  try {
    return JSON.parse(readFileSync(root + path, "utf8")).packages;
  } catch {
    return null;
  }
}

/** True if every package of the lock file is installed in its version. Optional ones may be missing: they are for other systems. */
function isInstalled() {
  const wanted = packagesOf("package-lock.json");
  const installed = packagesOf("node_modules/.package-lock.json");
  if (!wanted || !installed) return false;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === "") return true;
    const found = installed[path];
    return found ? found.version === entry.version : Boolean(entry.optional || entry.devOptional || entry.peer);
  });
}

function install() {
  say("installing packages into node_modules; this happens once and takes about a minute");
  const npm = process.env.npm_execpath?.endsWith("npm-cli.js") ? [process.execPath, process.env.npm_execpath] : ["npm"];
  const args = [...npm.slice(1), "ci", "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"];
  // Standard output belongs to the command that follows.
  const { status, error } = spawnSync(npm[0], args, { cwd: root, stdio: ["ignore", 2, 2], shell: process.platform === "win32" });
  if (status === 0) return;
  say(`npm ci failed${error ? ` (${error.message})` : ""}. Check that the npm registry can be reached, then try again.`);
  process.exit(1);
}

function nodeSuffices() {
  const [major, minor] = process.versions.node.split(".").map(Number);
  return major > NODE_MAJOR_MIN || (major === NODE_MAJOR_MIN && minor >= NODE_MINOR_MIN);
}

if (!isInstalled()) install();
if (!existsSync(`${root}node_modules/.bin/node`) && !nodeSuffices()) {
  say(
    `this is Node ${process.versions.node}, and the Node 24 that belongs to the packages is missing, probably because npm skips install scripts. ` +
      `Run "npm rebuild node --ignore-scripts=false", or use Node ${NODE_MAJOR_MIN}.${NODE_MINOR_MIN} or later.`,
  );
  process.exit(1);
}
