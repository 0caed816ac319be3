// The row of an event's properties, as receiver/document writes it: pieces of the event's text, without the large
// values, which leave the row as blobs.

import { Buffer } from "node:buffer";

import { decode, encode, isSpace, trimSpace, unescape, Writer } from "./bytes";
import { type Member, type Span } from "./scanner";

/** maxRow limits the properties that stay in a row, in bytes. */
export const maxRow = 8 << 20;
const minThreshold = 1 << 10;
const blobRoom = 320; // about what a reference takes in the row, in bytes
const hole = "null";

/** largeFrom is the size from which on the scanner has to list values, for blobs above a threshold. */
export function largeFrom(threshold: number): number {
  if (threshold === 0) return Infinity;
  while (threshold > minThreshold) threshold = Math.floor(threshold / 8);
  return threshold;
}

/** Blob is a large value on its way out of its row. */
export interface Blob {
  readonly kind: "text" | "json" | "data_url" | "file";
  readonly contentType: string;
  readonly data: Uint8Array;
}

/** Part is a part of the properties: a member, or the members of an object. */
export interface Part {
  readonly start: number;
  readonly end: number;
  readonly object: boolean;
}

/** memberPart is a member as a property. */
export const memberPart = (m: Member): Part => ({ start: m.at, end: m.end, object: false });

/** spreadPart is the members of an object as properties. */
export const spreadPart = (m: Member): Part => ({ start: m.start, end: m.end, object: true });

interface Cut extends Span {
  readonly piece: number;
}

/** Row is properties, split where blobs left them: the reference to blobs[i] is between texts[i] and texts[i+1]. */
export interface Row {
  readonly texts: Uint8Array[];
  readonly blobs: Blob[];
  readonly size: number;
}

/** TooLong says that more than maxRow bytes are left of an event. */
export class TooLong {
  constructor(
    readonly left: number,
    readonly threshold: number,
  ) {}
}

/** joined merges neighbours. */
function joined(text: Uint8Array, parts: readonly Part[]): Part[] {
  const out: Part[] = [];
  for (const p of parts) {
    const last = out[out.length - 1];
    if (
      last !== undefined &&
      !last.object &&
      !p.object &&
      last.end < p.start &&
      isComma(text.subarray(last.end, p.start))
    ) {
      out[out.length - 1] = { start: last.start, end: p.end, object: false };
    } else out.push(p);
  }
  return out;
}

const isComma = (between: Uint8Array): boolean =>
  between.length === 1 || (between.length < 100 && trimSpace(between).length === 1);

/** writeRow writes the row of an event, with values above threshold as blobs. 0: there are none. */
export function writeRow(
  text: Uint8Array,
  parts: readonly Part[],
  large: readonly Span[],
  threshold: number,
): Row | TooLong {
  const pieces = joined(text, parts);
  const planned = plan(text, pieces, large, threshold);
  if (planned.left > maxRow) return new TooLong(planned.left, planned.threshold);
  const { cuts } = planned;
  const only = pieces.length === 1 ? pieces[0] : undefined;
  if (only?.object && cuts.length === 0) {
    const row = flat(text.slice(only.start, only.end));
    return { texts: [row], blobs: [], size: row.length };
  }
  const texts: Uint8Array[] = [];
  const blobs: Blob[] = [];
  let size = 0;
  const w = new Writer(Math.min(planned.left + 64, 1 << 20)).text("{");
  let from = 0;
  let next = 0;
  pieces.forEach((p, index) => {
    let [start, end] = bounds(text, p);
    if (start === end) return;
    if (w.last() !== 0x7b || w.length > 1) w.text(",");
    for (let cut = cuts[next]; cut !== undefined && cut.piece === index; cut = cuts[++next]) {
      w.bytes(text.subarray(start, cut.start));
      texts.push(flat(w.copy(from)));
      size += w.length - from;
      from = w.length;
      blobs.push(newBlob(text.subarray(cut.start, cut.end)));
      start = cut.end;
    }
    w.bytes(text.subarray(start, end));
  });
  w.text("}");
  texts.push(flat(w.copy(from)));
  return { texts, blobs, size: size + w.length - from };
}

/** withHoles is a row with null in place of its blobs. */
export function withHoles(row: Row): Uint8Array {
  const w = new Writer(row.size + 8 * row.texts.length);
  row.texts.forEach((t, i) => {
    if (i > 0) w.text(hole);
    w.bytes(t);
  });
  return w.copy();
}

/** flat makes a text fit into a line. Unescaped line ends can only be white space. */
function flat(text: Uint8Array): Uint8Array {
  for (const c of [0x0a, 0x0d]) for (let i = text.indexOf(c); i >= 0; i = text.indexOf(c, i)) text[i] = 0x20;
  return text;
}

/** bounds is where the members of a part are, without their braces. */
function bounds(text: Uint8Array, p: Part): [start: number, end: number] {
  if (!p.object) return [p.start, p.end];
  let start = p.start + 1;
  let end = p.end - 1;
  while (start < end && isSpace(text[start])) start++;
  while (end > start && isSpace(text[end - 1])) end--;
  return [start, end];
}

/**
 * plan decides which values leave the row: strings above the threshold, and arrays and objects of which more than that
 * is left without the large values in them. If too much is left in the row, it decides again with a smaller threshold.
 */
function plan(
  text: Uint8Array,
  pieces: readonly Part[],
  large: readonly Span[],
  threshold: number,
): { left: number; threshold: number; cuts: Cut[] } {
  for (; ; threshold = Math.floor(threshold / 8)) {
    const cuts: Cut[] = [];
    let left = "{}".length;
    pieces.forEach((p, piece) => {
      const size = p.end - p.start;
      if (threshold === 0 || size <= threshold || large.length === 0) {
        left += size + 1;
        return;
      }
      const start = p.object ? p.start + 1 : p.start; // the object itself stays
      const ahead = large.filter((l) => l.start >= start);
      left += new Planner(text, ahead, piece, threshold, cuts).left(start, p.end) + 1;
    });
    if (left <= maxRow || threshold <= minThreshold) return { left, threshold, cuts };
  }
}

class Planner {
  private next = 0;

  constructor(
    private readonly text: Uint8Array,
    private readonly large: readonly Span[],
    private readonly piece: number,
    private readonly threshold: number,
    private readonly cuts: Cut[],
  ) {}

  /** left is how many bytes of a part of the text stay when the large values in it are cut out. */
  left(start: number, end: number): number {
    let left = end - start;
    for (let l = this.large[this.next]; l !== undefined && l.start < end; l = this.large[this.next]) {
      this.next++;
      const size = l.end - l.start;
      if (size <= this.threshold) continue;
      if (this.text[l.start] !== 0x22) {
        const before = this.cuts.length;
        const inner = this.left(l.start, l.end);
        if (inner <= this.threshold) {
          left -= size - inner;
          continue;
        }
        this.cuts.length = before;
      }
      this.cuts.push({ piece: this.piece, start: l.start, end: l.end });
      left -= size - hole.length - blobRoom;
    }
    return left;
  }
}

const maxMediaType = 200;

/** newBlob is the blob of a JSON value: the content of a string, the bytes of a data URL, or the JSON itself. */
function newBlob(value: Uint8Array): Blob {
  if (value[0] !== 0x22) return { kind: "json", contentType: "application/json", data: value.slice() };
  const content = value.subarray(1, value.length - 1);
  return (
    dataURL(content) ?? { kind: "text", contentType: "text/plain; charset=utf-8", data: unescape(content).slice() }
  );
}

/** dataURL is the data of a data URL, if its decoded bytes can restore it exactly. */
function dataURL(content: Uint8Array): Blob | undefined {
  const head = decode(content.subarray(0, "data:".length + maxMediaType));
  const at = head.indexOf(";base64,");
  if (!head.startsWith("data:") || at < 0 || head.slice(0, at).includes("\\")) return undefined;
  const mediaType = head.slice("data:".length, at);
  const from = encode(head.slice(0, at)).length + ";base64,".length;
  const data = decodeBase64(decode(content.subarray(from)));
  return data && { kind: "data_url", contentType: mediaType, data };
}

/** decodeBase64 decodes what an encoder restores exactly: padded, without white space, unused bits 0. */
function decodeBase64(text: string): Uint8Array | undefined {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return undefined;
  const data = Buffer.from(text, "base64");
  return data.toString("base64") === text ? new Uint8Array(data) : undefined;
}
