// The Worker's settings: wrangler.jsonc documents each. A name that the receiver has as well means the same here.

import type { Shard } from "./shard";
import type { Limits } from "./events";

export interface Env {
  readonly SHARD: DurableObjectNamespace<Shard>;
  readonly BUCKET: R2Bucket;
  readonly KEYS?: KVNamespace; // keys by their hash
  readonly PROJECTS?: string; // a secret: the projects file as JSON
  readonly FORWARD_KEYS?: string; // a secret: {"project": "key"}
  readonly MODE?: string;
  readonly NAME?: string;
  readonly RECEIVER_URL?: string;
  readonly FORWARD_TIMEOUT?: string;
  readonly SHARDS?: string;
  readonly SPREAD?: string;
  readonly GATHER?: string;
  readonly ROLL_AGE?: string;
  readonly ROLL_BYTES?: string;
  readonly MAX_BUFFER?: string;
  readonly MAX_BODY?: string;
  readonly SMALL_BODY?: string;
  readonly MAX_EVENT?: string;
  readonly MAX_EVENTS?: string;
  readonly MAX_DEPTH?: string;
  readonly BLOB_THRESHOLD?: string;
  readonly ERROR_BLOB_THRESHOLD?: string;
  readonly ANONYMOUS_RATE?: string;
  readonly CORS_ORIGINS?: string;
}

export interface Settings {
  readonly mode: "store" | "forward";
  readonly name: string; // begins the name of each shard, which is the receiver in keys and rows
  readonly receiverURL: string;
  readonly forwardTimeout: number; // ms
  readonly shards: number;
  readonly spread: number; // shards of one project
  readonly gather: number; // ms
  readonly rollAge: number; // ms
  readonly rollBytes: number; // of lines, before compression
  readonly maxBuffer: number; // bytes in a shard's storage
  readonly maxBody: number; // bytes, as sent and decompressed
  readonly smallBody: number; // the same, of keys without large
  readonly errorBlobThreshold: number;
  readonly anonymousRate: number; // bytes a second, for each isolate
  readonly origins: readonly string[];
  readonly limits: Limits;
}

const seen = new WeakMap<Env, Settings>();

/** settingsOf reads the settings. It throws an Error that names what is wrong. */
export function settingsOf(env: Env): Settings {
  const known = seen.get(env);
  if (known !== undefined) return known;
  const read = parse(env);
  seen.set(env, read);
  return read;
}

function parse(env: Env): Settings {
  const number = (name: keyof Env & string, fallback: number, min: number, max: number): number => {
    const text = env[name];
    if (text === undefined || text === "") return fallback;
    const n = Number(text);
    if (!Number.isInteger(n) || n < min || n > max) {
      throw new Error(`${name} is ${JSON.stringify(text)}: set a whole number from ${min} to ${max}`);
    }
    return n;
  };
  const mode = env.MODE ?? "store";
  if (mode !== "store" && mode !== "forward")
    throw new Error(`MODE is ${JSON.stringify(mode)}: set "store" or "forward"`);
  const receiverURL = env.RECEIVER_URL ?? "";
  if (mode === "forward" && !/^https?:\/\/[^/]+/.test(receiverURL)) {
    throw new Error(
      `RECEIVER_URL is ${JSON.stringify(receiverURL)}: set the receiver's URL, as https://events.example.com`,
    );
  }
  const name = env.NAME ?? "edge";
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,47}$/.test(name)) {
    throw new Error(`NAME is ${JSON.stringify(name)}: use 1 to 48 letters, digits, dots, dashes and underscores`);
  }
  const shards = number("SHARDS", 4, 1, 1000);
  const mib = 1 << 20;
  const maxBody = number("MAX_BODY", 16 * mib, 1, 32 * mib);
  return {
    mode,
    name,
    receiverURL,
    shards,
    forwardTimeout: number("FORWARD_TIMEOUT", 10, 1, 60) * 1000,
    spread: number("SPREAD", shards, 1, shards),
    gather: number("GATHER", 20, 0, 1000),
    rollAge: number("ROLL_AGE", 90, 1, 3600) * 1000,
    rollBytes: number("ROLL_BYTES", 32 * mib, 1, 64 * mib),
    maxBuffer: number("MAX_BUFFER", 8 * 1024 * mib, mib, 9 * 1024 * mib),
    maxBody,
    smallBody: number("SMALL_BODY", 4 * mib, 1, maxBody),
    errorBlobThreshold: number("ERROR_BLOB_THRESHOLD", mib, 1, 16 * mib),
    anonymousRate: number("ANONYMOUS_RATE", 64 << 10, 0, 64 * mib),
    origins: (env.CORS_ORIGINS ?? "*")
      .split(",")
      .map((o) => o.trim())
      .filter((o) => o !== ""),
    limits: {
      maxEvent: number("MAX_EVENT", maxBody, 1, maxBody),
      maxEvents: number("MAX_EVENTS", 50_000, 1, 50_000),
      maxDepth: number("MAX_DEPTH", 64, 1, 1000),
      blobThreshold: number("BLOB_THRESHOLD", 64 << 10, 1 << 10, 1 << 20),
    },
  };
}
