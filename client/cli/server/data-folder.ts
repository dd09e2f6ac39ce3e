/**
 * The data folder and the root token in it. Only the owner can read them; the
 * token is made once and never changes by itself.
 */
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Refusal } from "./refusal.ts";

const TOKEN_BYTES = 32;
const TOKEN = /^[\x21-\x7e]{16,}$/;

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

/** Makes the folder if it is missing and answers with its real path. */
export function openFolder(path: string): string {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    return realpathSync(path);
  } catch (error) {
    throw new Refusal(`cannot use ${path} as data folder (${codeOf(error)}). Name a folder that you may write to with --data DIR.`);
  }
}

/** Where what executors need lies while there are any, and `N.pid` says which process executor N is. */
export function executorsFolder(folder: string): string {
  return join(folder, "executors");
}

/** The path of the root token inside a data folder. */
export function tokenPath(folder: string): string {
  return join(folder, "root-token");
}

/** Reads the root token, or makes one. Call it only while the folder is locked. */
export function rootToken(folder: string): string {
  const path = tokenPath(folder);
  try {
    writeFileSync(path, `drv_root_${randomBytes(TOKEN_BYTES).toString("base64url")}\n`, { mode: 0o600, flag: "wx" });
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw new Refusal(`cannot write ${path} (${codeOf(error)}).`);
  }
  chmodSync(path, 0o600);
  return tokenOf(folder);
}

/** The root token of a folder that has one. */
export function tokenOf(folder: string): string {
  const path = tokenPath(folder);
  let token = "";
  try {
    token = readFileSync(path, "utf8").trim();
  } catch (error) {
    throw new Refusal(`cannot read ${path} (${codeOf(error)}).`);
  }
  if (!TOKEN.test(token)) throw new Refusal(`${path} does not hold a token. Remove the file to have a new one made.`);
  return token;
}
