// Reading a request's body within its limits: receiver/body.go.

import * as zlib from "node:zlib";

import { concat } from "./bytes";
import { type Rejection, reject } from "./codes";

/** Body is one as it was sent, and decompressed. */
export interface Body {
  readonly sent: Uint8Array;
  readonly data: Uint8Array;
}

/** Head is what the request's head says of its body. */
export interface Head {
  readonly lines: boolean; // it is NDJSON
  readonly encoding: string; // empty: none
}

const kinds = {
  lines: [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/json-lines",
  ],
  json: [
    "application/json",
    "text/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
  ],
};

/** headOf judges content type and encoding. */
export function headOf(headers: Headers): Head {
  const value = headers.get("Content-Type") ?? "";
  const [kind = "", ...params] = value.split(";").map((p) => p.trim());
  const type = kind.toLowerCase();
  const lines = kinds.lines.includes(type);
  if (headers.has("Ce-Specversion")) {
    throw reject("unsupported_media_type", "the edge does not accept CloudEvents: send them to a receiver");
  }
  if (value !== "" && !lines && !kinds.json.includes(type)) {
    throw reject(
      "unsupported_media_type",
      `content type ${JSON.stringify(type.slice(0, 100))}: send application/json or application/x-ndjson`,
    );
  }
  for (const p of params) {
    const [name = "", text = ""] = p.split("=");
    if (name.trim().toLowerCase() !== "charset") continue;
    const charset = text.trim().replace(/^"(.*)"$/, "$1");
    if (!["", "utf-8", "utf8", "us-ascii"].includes(charset.toLowerCase())) {
      throw reject("unsupported_charset", `charset ${JSON.stringify(charset.slice(0, 100))}: JSON is UTF-8`);
    }
  }
  const encoding = (headers.get("Content-Encoding") ?? "").trim().toLowerCase();
  if (!["", "identity", "gzip", "x-gzip", "zstd", "deflate"].includes(encoding)) {
    throw reject(
      "unsupported_encoding",
      `content encoding ${JSON.stringify(encoding.slice(0, 100))}: send gzip, zstd, deflate or none`,
    );
  }
  return { lines, encoding: encoding === "identity" ? "" : encoding };
}

/** smallLimit rejects a body that is too large for its key. */
export const smallLimit = (limit: number): Rejection =>
  reject(
    "body_too_large",
    `this key may send bodies of ${limit} bytes: send fewer events at once, or have the key made for large ones`,
  );

const bodyLimit = (limit: number): Rejection =>
  reject("body_too_large", `the body is larger than the limit of ${limit} bytes`);

/** lengthOf is the length that a request announces; undefined: none. */
export function lengthOf(request: Request): number | undefined {
  const text = request.headers.get("Content-Length");
  return text === null || !/^\d+$/.test(text) ? undefined : Number(text);
}

/** readSent reads a body as it was sent. A client reads its answer once it has sent all, so all of it is read. */
export async function readSent(request: Request, limit: number): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array(0);
  const parts: Uint8Array[] = [];
  let size = (lengthOf(request) ?? 0) > limit ? Infinity : 0;
  const reader = (request.body as ReadableStream<Uint8Array>).getReader();
  for (;;) {
    let part: ReadableStreamReadResult<Uint8Array>;
    try {
      part = await reader.read();
    } catch (e) {
      throw reject("incomplete_body", `the body ended before it was complete: ${(e as Error).message}`);
    }
    if (part.done) break;
    size += part.value.length;
    if (size <= limit) parts.push(part.value);
    else parts.length = 0;
  }
  if (size > limit) throw bodyLimit(limit);
  return parts.length === 1 ? parts[0]! : concat(parts);
}

/** decompress returns a body as its client wrote it. small: its key may not send more than limit. */
export function decompress(sent: Uint8Array, encoding: string, limit: number, small: boolean): Uint8Array {
  if (encoding === "") return sent;
  try {
    return unpack(sent, encoding, limit);
  } catch (e) {
    if (!(e instanceof RangeError)) {
      throw reject("invalid_encoding", `the body is not valid ${encoding}: ${(e as Error).message}`);
    }
    if (small) throw smallLimit(limit);
    throw reject("decoded_too_large", `the decompressed body is larger than the limit of ${limit} bytes`);
  }
}

function unpack(sent: Uint8Array, encoding: string, limit: number): Uint8Array {
  const options = { maxOutputLength: limit, info: true };
  // With info, the result says how many bytes were read. The types do not know that.
  const read = (result: unknown): Uint8Array => {
    const { buffer, engine } = result as { buffer: Uint8Array; engine: { bytesWritten: number } };
    if (engine.bytesWritten < sent.length) throw new Error("something follows the compressed data");
    return buffer;
  };
  if (sent.length === 0) throw new Error("unexpected EOF");
  if (encoding === "zstd") return read(zlib.zstdDecompressSync(sent, options));
  if (encoding !== "deflate") return read(zlib.gunzipSync(sent, options));
  const wrapped = sent.length >= 2 && (sent[0]! & 0x0f) === 8 && (sent[0]! * 256 + sent[1]!) % 31 === 0;
  return read(wrapped ? zlib.inflateSync(sent, options) : zlib.inflateRawSync(sent, options));
}
