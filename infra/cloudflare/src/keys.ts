// Projects and their keys. Only hashes are known here, as in the projects file: docs/guides/projects.md.

import { decode, encode } from "./bytes";
import { type Rejection, reject } from "./codes";
import { sha256 } from "./ids";
import type { Env, Settings } from "./settings";

/** Key is a key as the projects file has it. */
interface Key {
  readonly sha256: string;
  readonly scopes?: readonly string[];
  readonly min_durability?: string;
  readonly large?: boolean;
  readonly expires?: string;
}

/** KeyEntry is a key as the KV namespace has it: its name there is the hash. scripts/keys.mjs writes them. */
interface KeyEntry extends Omit<Key, "sha256"> {
  readonly project: string;
  readonly settings?: readonly string[]; // of its project, besides its keys
}

interface ProjectsFile {
  readonly projects: Readonly<Record<string, { readonly keys?: readonly Key[] } | null>>;
}

/** Grant is what a key allows. */
export interface Grant {
  readonly project: string;
  readonly small: boolean;
}

export type Durability = "memory" | "disk" | "object";

const strength: Readonly<Record<Durability, number>> = { memory: 0, disk: 1, object: 2 };

const isDurability = (text: string): text is Durability => text in strength;

/** headKey takes the key from a header, the user of Basic authentication, or the query. */
export function headKey(request: Request, url: URL): string | undefined {
  const auth = request.headers.get("Authorization") ?? "";
  const space = auth.indexOf(" ");
  if (space > 0) {
    const scheme = auth.slice(0, space).toLowerCase();
    const rest = auth.slice(space + 1);
    if (scheme === "bearer") return rest.trim();
    const user = scheme === "basic" ? basicUser(rest) : undefined;
    if (user !== undefined) return user;
  }
  return request.headers.get("X-API-Key") || url.searchParams.get("key") || undefined;
}

function basicUser(encoded: string): string | undefined {
  try {
    const text = decode(Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0)));
    const colon = text.indexOf(":");
    return colon < 0 ? undefined : text.slice(0, colon);
  } catch {
    return undefined;
  }
}

/** durabilityOf reads the query's durability. undefined: none is asked for. */
export function durabilityOf(url: URL): Durability | undefined {
  const asked = url.searchParams.get("durability");
  if (asked === null || asked === "") return undefined;
  if (isDurability(asked)) return asked;
  throw reject("unknown_durability", `durability ${JSON.stringify(asked.slice(0, 100))}: memory, disk or object`);
}

export const missingKey = (): Rejection =>
  reject("missing_key", "no key: send it as Authorization: Bearer KEY, Basic user, X-API-Key or ?key=");

/** entryOf finds a key that is in force. It throws a Rejection if there is none. */
export async function entryOf(env: Env, key: string, now: number): Promise<KeyEntry> {
  const hash = sha256(encode(key));
  const entry = secretKeys(env.PROJECTS).get(hash) ?? (await storedKey(env, hash));
  if (entry === undefined) throw reject("unknown_key", "the key is not known here");
  const expires = expiryOf(entry.expires);
  if (now >= expires) {
    const at = new Date(expires).toISOString().replace(".000Z", "Z");
    throw reject("expired_key", `the key expired at ${at}: ask for its successor`);
  }
  return entry;
}

/** grantOf says what a key allows. */
export function grantOf(entry: KeyEntry, asked: Durability | undefined): Grant & { durability: Durability } {
  if (entry.scopes !== undefined && !entry.scopes.includes("write")) {
    throw reject("write_not_allowed", 'the key lacks the scope "write"');
  }
  const least = entry.min_durability ?? "memory";
  if (!isDurability(least)) throw new Error(`min_durability of a key of ${entry.project} is ${JSON.stringify(least)}`);
  const durability = asked ?? (strength[least] > strength.disk ? least : "disk");
  if (strength[durability] < strength[least]) {
    throw reject("durability_too_low", `this key asks for durability ${least} at least`);
  }
  return { project: entry.project, small: entry.large !== true, durability };
}

function expiryOf(text: string | undefined): number {
  if (text === undefined || text === "") return Infinity;
  const ms = Date.parse(text);
  if (Number.isNaN(ms))
    throw new Error(`expires of a key is ${JSON.stringify(text)}: want 2026-12-31 or a time in RFC 3339`);
  return ms;
}

/**
 * checkSettings refuses projects with settings that are not applied here. The receiver applies them to
 * forwarded events. Stored events would bypass them: values that should be dropped would be in the bucket.
 */
export function checkSettings(entry: KeyEntry, settings: Settings): void {
  const unknown = entry.settings ?? [];
  if (settings.mode === "forward" || unknown.length === 0) return;
  console.error(
    JSON.stringify({
      message: "project has settings that MODE store does not apply",
      project: entry.project,
      settings: unknown,
      do: "set MODE to forward, or remove the settings",
    }),
  );
  throw reject("unavailable", `the edge cannot apply the settings of this project: ${unknown.join(", ")}`);
}

let secret: { readonly text: string; readonly keys: ReadonlyMap<string, KeyEntry> } | undefined;

/** secretKeys are the keys of the secret PROJECTS, parsed once for each isolate. */
function secretKeys(text: string | undefined): ReadonlyMap<string, KeyEntry> {
  if (text === undefined || text === "") return new Map();
  if (secret?.text === text) return secret.keys;
  const keys = new Map<string, KeyEntry>();
  let file: ProjectsFile;
  try {
    file = JSON.parse(text) as ProjectsFile;
  } catch (e) {
    throw new Error(`the secret PROJECTS is not JSON: ${(e as Error).message}; write it by "yq -o=json projects.yaml"`);
  }
  for (const [project, p] of Object.entries(file.projects)) {
    const settings = Object.keys(p ?? {}).filter((name) => name !== "keys");
    for (const { sha256: hash, ...rest } of p?.keys ?? []) keys.set(hash.toLowerCase(), { ...rest, project, settings });
  }
  secret = { text, keys };
  return keys;
}

const remembered = new Map<string, { readonly until: number; readonly entry: KeyEntry | undefined }>();
const rememberMs = 60_000;
const maxRemembered = 10_000;

/** storedKey reads a key of the KV namespace, at most once a minute for each isolate. */
async function storedKey(env: Env, hash: string): Promise<KeyEntry | undefined> {
  if (env.KEYS === undefined) return undefined;
  const now = Date.now();
  const known = remembered.get(hash);
  if (known !== undefined && known.until > now) return known.entry;
  const entry = (await env.KEYS.get<KeyEntry>(hash, { type: "json", cacheTtl: rememberMs / 1000 })) ?? undefined;
  if (remembered.size >= maxRemembered) remembered.clear();
  remembered.set(hash, { until: now + rememberMs, entry });
  return entry;
}
