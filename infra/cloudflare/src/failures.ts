// Failure records: rejected events and requests, as events of the errors pipeline (errors-pipeline/event.go, receiver/rejects.go).

import { Buffer } from "node:buffer";

import { clip, encode, isUTF8, Writer } from "./bytes";
import type { Code } from "./codes";
import { appendLine, type Reject, type Reference } from "./events";
import { newUUIDv7 } from "./ids";
import type { Blob } from "./rows";

/** Origin is what all failure records of a request have in common. */
export interface Origin {
  readonly time: number; // ms
  readonly project: string; // empty: not known
  readonly requestId: string;
  readonly method: string;
  readonly path: string;
  readonly contentType: string;
  readonly clientIP: string;
  readonly userAgent: string;
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>;
}

/** Failure is a rejected event or request. */
export interface Failure {
  readonly code: Code | string;
  readonly message: string;
  readonly raw: Uint8Array;
  readonly index: number; // of the event; -1: the request as a whole
  readonly count?: number; // events that the record stands for
  readonly contentEncoding?: string; // of raw
}

const maxHeader = 1024;
const chosen = ["Origin", "Referer", "Accept-Language", "X-Forwarded-For", "Forwarded", "X-Request-Id", "Traceparent"];

/** originOf takes what a failure record keeps of a request. It never has the key. */
export function originOf(request: Request, url: URL, time: number, requestId: string, project: string): Origin {
  const headers: Array<[string, string]> = [];
  const add = (name: string, value: string | null): void => {
    if (value !== null && value !== "") headers.push([name, clip(value, maxHeader)]);
  };
  add("Host", request.headers.get("Host") ?? url.host);
  add("Content-Length", request.headers.get("Content-Length"));
  for (const name of chosen) {
    const value = request.headers.get(name);
    add(name, name === "Referer" ? (value?.split("?")[0] ?? null) : value);
  }
  return {
    time,
    project,
    requestId,
    headers,
    method: clip(request.method, maxHeader),
    path: clip(url.pathname, maxHeader),
    contentType: clip(request.headers.get("Content-Type") ?? "", maxHeader),
    clientIP: clientOf(request).ip,
    userAgent: clip(request.headers.get("User-Agent") ?? "", maxHeader),
  };
}

/** Client is what Cloudflare knows about the client of a request. */
export interface Client {
  readonly ip: string;
  readonly userAgent: string;
  readonly country: string;
}

export const clientOf = (request: Request): Client => ({
  ip: request.headers.get("CF-Connecting-IP") ?? "",
  userAgent: request.headers.get("User-Agent") ?? "",
  country: request.headers.get("CF-IPCountry") ?? "",
});

const maxAlike = 100;

/**
 * failuresOf makes failure records of rejected events. Those of a code beyond the first 100 share one record, so that a
 * body of empty objects is not 50,000 rows.
 */
export function failuresOf(rejects: readonly Reject[]): Failure[] {
  const all: Failure[] = [];
  const byCode = new Map<Code, Reject[]>();
  for (const r of rejects) {
    const alike = byCode.get(r.code) ?? [];
    byCode.set(r.code, alike);
    alike.push(r);
    if (alike.length <= maxAlike) all.push({ code: r.code, message: r.message, raw: r.raw, index: r.index });
  }
  for (const [code, alike] of byCode) {
    const rest = alike.slice(maxAlike);
    const first = rest[0];
    const last = rest[rest.length - 1];
    if (first === undefined || last === undefined) continue;
    const w = new Writer();
    for (const r of rest) w.bytes(r.raw).text("\n");
    all.push({
      code,
      raw: w.copy(),
      index: first.index,
      count: rest.length,
      message:
        `${rest.length} events of one request, at indexes ${first.index} to ${last.index}, after ${maxAlike} ` +
        `others with this code; the first: ${first.message}`,
    });
  }
  return all;
}

/** rawBlob is the raw payload of a failure if it is too large for a row. Its content type is never the one that the client gave. */
export const rawBlob = (f: Failure, threshold: number): Blob | undefined =>
  f.raw.length > threshold ? { kind: "file", contentType: "application/octet-stream", data: f.raw } : undefined;

/** appendFailure writes a failure as a line of an object of the errors pipeline. */
export function appendFailure(w: Writer, f: Failure, o: Origin, blob: Reference | undefined): void {
  const properties = new ObjectWriter();
  properties.text("stage", "receiver");
  properties.text("message", f.message);
  properties.text("request_id", o.requestId);
  properties.text("method", o.method);
  properties.text("path", o.path);
  properties.text("content_type", o.contentType);
  properties.text("content_encoding", f.contentEncoding ?? "");
  if (f.index >= 0) properties.number("index", f.index);
  if (f.count !== undefined) properties.number("count", f.count);
  if (o.headers.length > 0) {
    const headers = new ObjectWriter();
    for (const [name, value] of o.headers) headers.text(name, value);
    properties.raw("headers", headers.end());
  }
  const texts: Uint8Array[] = [];
  if (blob !== undefined) {
    properties.number("raw_bytes", f.raw.length);
    properties.key("raw_blob");
    texts.push(properties.w.copy(), encode("}"));
  } else {
    if (f.raw.length > 0) {
      if (isUTF8(f.raw) && f.raw.indexOf(0) < 0) properties.quoted("raw", f.raw);
      else properties.quoted("raw_base64", encode(Buffer.from(f.raw).toString("base64")));
    }
    texts.push(properties.end());
  }
  const context = new ObjectWriter();
  context.text("ip", o.clientIP);
  context.text("user_agent", o.userAgent);
  const none = new Uint8Array(0);
  const row = { texts, blobs: [], size: 0 };
  const event = {
    id: newUUIDv7(o.time),
    name: encode(f.code),
    session: none,
    user: none,
    timestamp: o.time,
    row,
    sent: none,
  };
  appendLine(w, event, o.project, o.time, context.end(), blob === undefined ? [] : [blob]);
}

/** ObjectWriter writes a JSON object. */
export class ObjectWriter {
  readonly w = new Writer().text("{");

  key(name: string): void {
    if (this.w.length > 1) this.w.text(",");
    this.w.quotedText(name).text(":");
  }

  number(name: string, value: number): void {
    this.key(name);
    this.w.text(String(value));
  }

  /** text writes a member unless it is empty. */
  text(name: string, value: string): void {
    if (value !== "") this.quoted(name, encode(value));
  }

  quoted(name: string, value: Uint8Array): void {
    this.key(name);
    this.w.quoted(value);
  }

  raw(name: string, value: Uint8Array): void {
    this.key(name);
    this.w.bytes(value);
  }

  end(): Uint8Array {
    return this.w.text("}").copy();
  }
}
