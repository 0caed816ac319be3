// Ids of events, as internal/pipeline/event.go makes them.

import { createHash } from "node:crypto";

import { concat, encode, hex } from "./bytes";

/** eventNamespace is the name space in which client ids that are not UUIDs become UUIDv5. */
const eventNamespace = new Uint8Array([
  0xee, 0xec, 0x39, 0x59, 0x06, 0x49, 0x5d, 0x97, 0x85, 0x6f, 0x4b, 0x11, 0x7a, 0x44, 0x4a, 0x92,
]);

function canonical(u: Uint8Array): string {
  const h = hex(u);
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`;
}

const form = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** parseUUID returns the canonical form of a UUID, or undefined for any other text. */
export const parseUUID = (text: string): string | undefined => (form.test(text) ? text.toLowerCase() : undefined);

/** newUUIDv7 makes an id for an event that came without one. Such ids sort as they came. */
export function newUUIDv7(ms: number): string {
  const u = crypto.getRandomValues(new Uint8Array(16));
  for (let i = 5; i >= 0; i--) {
    u[i] = ms % 256;
    ms = Math.floor(ms / 256);
  }
  u[6] = (u[6]! & 0x0f) | 0x70;
  u[8] = (u[8]! & 0x3f) | 0x80;
  return canonical(u);
}

/** uuidv5 is the id of an event if the client's id is not a UUID. */
export function uuidv5(project: string, id: Uint8Array): string {
  const name = encode(project);
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, name.length);
  const u = sha1(concat([eventNamespace, size, name, id])).slice(0, 16);
  u[6] = (u[6]! & 0x0f) | 0x50;
  u[8] = (u[8]! & 0x3f) | 0x80;
  return canonical(u);
}

// UUIDv5 is SHA-1 by its RFC.
const sha1 = (b: Uint8Array): Uint8Array => new Uint8Array(createHash("sha1").update(b).digest());

export const sha256 = (b: Uint8Array): string => createHash("sha256").update(b).digest("hex");

/** newRequestId tells requests apart, and is no secret. */
export const newRequestId = (): string => hex(crypto.getRandomValues(new Uint8Array(8)));
