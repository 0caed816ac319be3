// Keys and metadata of objects: docs/design/objects.md.

import { type Reference } from "./events";
import { sha256 } from "./ids";
import type { Blob } from "./rows";
import { keyTime, timeOf } from "./times";

export type Pipeline = "events" | "errors";

export const pipelines: readonly Pipeline[] = ["events", "errors"];

const schemaVersion = "3";

function folder(ms: number): string {
  const t = timeOf(ms);
  return `dt=${t.slice(0, 10)}/hr=${t.slice(11, 13)}`;
}

/** objectKey names the object of a batch: the time it began, the receiver, and the first sequence number. */
export const objectKey = (pipeline: Pipeline, began: number, receiver: string, seq: number): string =>
  `${pipeline}/${folder(began)}/${keyTime(began)}-${receiver}-${seq}.ndjson.zst`;

/** blobKey names the object with the blobs of a request. No other request has its id at that time. */
const blobKey = (pipeline: Pipeline, time: number, name: string, requestId: string): string =>
  `blobs/${pipeline}/${folder(time)}/${keyTime(time)}-${name}-${requestId}.blobs`;

/** Meta is what an object's metadata says of its rows. */
export interface Meta {
  readonly rows: number;
  readonly firstSeq: number;
  readonly firstReceived: number;
  readonly lastReceived: number;
  readonly sha256: string;
}

export const metadataOf = (m: Meta): Record<string, string> => ({
  "penstock-schema": schemaVersion,
  "penstock-rows": String(m.rows),
  "penstock-first-seq": String(m.firstSeq),
  "penstock-first-received": timeOf(m.firstReceived),
  "penstock-last-received": timeOf(m.lastReceived),
  "penstock-sha256": m.sha256,
});

/** putOnce stores an object unless its key is taken. false: it was taken. */
export async function putOnce(bucket: R2Bucket, key: string, body: Uint8Array, meta: Meta): Promise<boolean> {
  const stored = await bucket.put(key, body, {
    onlyIf: { etagDoesNotMatch: "*" },
    customMetadata: metadataOf(meta),
    httpMetadata: { contentType: "application/octet-stream" },
  });
  return stored !== null;
}

/** storeBlobs writes the blobs of a request as one object, straight to the bucket, and returns where they are. */
export async function storeBlobs(
  bucket: R2Bucket,
  pipeline: Pipeline,
  blobs: readonly Blob[],
  time: number,
  name: string,
  requestId: string,
): Promise<Reference[]> {
  if (blobs.length === 0) return [];
  const object = blobKey(pipeline, time, name, requestId);
  let size = 0;
  for (const b of blobs) size += b.data.length;
  const all = new Uint8Array(size);
  let at = 0;
  const references = blobs.map((b): Reference => {
    const first = at;
    all.set(b.data, first);
    at += b.data.length;
    return { ...b, object, first, sha256: sha256(b.data) };
  });
  const meta = { rows: 0, firstSeq: 0, firstReceived: 0, lastReceived: 0, sha256: sha256(all) };
  if (!(await putOnce(bucket, object, all, meta))) throw new Error(`another object has the key ${object}`);
  return references;
}
