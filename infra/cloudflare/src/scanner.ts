// A scanner that validates the JSON of one event in one pass. It rejects what internal/jsonscan rejects, with the same
// codes and messages: a text that one reader of our objects accepts and another does not must not get into an object.

import { type Code, Rejection } from "./codes";
import {
  decode,
  encodedSurrogate,
  escapedLow,
  hex4,
  isShortEscape,
  isSpace,
  unescape,
  validUTF8,
  withoutLoneSurrogates,
} from "./bytes";

export type Kind = "null" | "bool" | "number" | "string" | "object" | "array";

/** Member is one member of the outermost object. */
export interface Member {
  readonly key: string;
  readonly at: number; // where its key's quote is
  start: number; // of the value, without space
  end: number;
  kind: Kind;
}

/** Span is a value's place in the text. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Structure is an error behind which the text cannot be read. All other errors are content. */
export class Structure extends Rejection {
  constructor(
    message: string,
    readonly offset: number,
  ) {
    super("invalid_json", message);
  }
}

/** Scan is what scanning an object found. */
export interface Scan {
  readonly end: number; // bytes consumed
  readonly error?: Rejection; // the first content error
  readonly members: Member[];
  readonly large: Span[]; // values of largeFrom bytes or more, outer ones first
  readonly dotted: boolean; // a key, at any depth, has a dot
  readonly lone: boolean; // there is a surrogate without its partner
}

const maxKeys = 1 << 20;
const maxLarge = 1 << 18;
const fewKeys = 8;
const shown = 32;

export function unexpected(src: Uint8Array, i: number, want: string): Structure {
  const c = src[i];
  if (c === undefined) return new Structure(`unexpected end of JSON at byte ${i}, want ${want}`, i);
  const got = c > 0x20 && c < 0x7f ? `'${String.fromCharCode(c)}'` : "0x" + c.toString(16).padStart(2, "0");
  return new Structure(`unexpected byte ${got} at byte ${i}, want ${want}`, i);
}

/** Keys are those of one open object. */
class Keys {
  count = 0;
  private list: string[] = [];
  private set: Set<string> | undefined;

  /** add returns false if the key is there already. */
  add(key: string): boolean {
    this.count++;
    if (this.set !== undefined) {
      const before = this.set.size;
      return this.set.add(key).size > before;
    }
    if (this.list.includes(key)) return false;
    this.list.push(key);
    if (this.list.length > fewKeys) this.set = new Set(this.list);
    return true;
  }
}

interface Frame {
  readonly start: number;
  readonly object: boolean;
  readonly keys: Keys;
  fresh: boolean; // nothing of it was read yet
}

const noKeys = new Keys();

/** Scanner scans one text. */
class Scanner {
  private readonly src: Uint8Array;
  private refused: (Rejection & { offset?: number }) | undefined;
  private refusedAt = Infinity;
  private readonly frames: Frame[] = [];
  private openKeys = 0;
  readonly members: Member[] = [];
  large: Span[] = [];
  dotted = false;
  lone = false;

  constructor(
    src: Uint8Array,
    private readonly maxDepth: number,
    private largeFrom: number,
  ) {
    this.src = src;
  }

  private refuse(code: Code, offset: number, message: string): void {
    if (this.refusedAt <= offset) return;
    this.refusedAt = offset;
    this.refused = new Rejection(code, message + " at byte " + offset);
  }

  private space(i: number): number {
    while (isSpace(this.src[i])) i++;
    return i;
  }

  /** object scans the object at the start of the text. It throws a Structure. */
  object(): Scan {
    const src = this.src;
    let i = this.space(0);
    if (i < src.length && src[i] !== 0x7b) this.refuse("not_an_object", i, "want an object");
    i = this.value(i);
    while (this.frames.length > 0) i = this.next(i);
    return {
      end: i,
      ...(this.refused === undefined ? {} : { error: this.refused }),
      members: this.members,
      large: this.large,
      dotted: this.dotted,
      lone: this.lone,
    };
  }

  /** next reads on within the innermost container, behind its bracket or behind a value. It never calls itself. */
  private next(i: number): number {
    const src = this.src;
    const frame = this.frames[this.frames.length - 1]!;
    i = this.space(i);
    if (frame.fresh) {
      frame.fresh = false;
      if (src[i] === (frame.object ? 0x7d : 0x5d)) return this.close(i, frame);
      if (!frame.object) return this.value(i);
      if (src[i] === 0x22) return this.member(i);
      throw unexpected(src, i, "a key or '}'");
    }
    if (frame.object) {
      if (src[i] === 0x7d) return this.close(i, frame);
      if (src[i] !== 0x2c) throw unexpected(src, i, "',' or '}'");
      i = this.space(i + 1);
      if (src[i] !== 0x22) throw unexpected(src, i, "a key");
      return this.member(i);
    }
    if (src[i] === 0x5d) return this.close(i, frame);
    if (src[i] !== 0x2c) throw unexpected(src, i, "',' or ']'");
    return this.value(this.space(i + 1));
  }

  private open(i: number, object: boolean): number {
    const deep = this.frames.length >= this.maxDepth;
    if (deep) this.refuse("too_deep", i, `nested deeper than ${this.maxDepth} levels`);
    this.frames.push({ start: i, object, keys: object && !deep ? new Keys() : noKeys, fresh: true });
    return i + 1;
  }

  private close(i: number, frame: Frame): number {
    i++;
    const depth = this.frames.length;
    if (depth > 1 && depth <= this.maxDepth) this.list(frame.start, i);
    this.frames.pop();
    if (frame.keys !== noKeys) this.openKeys -= frame.keys.count;
    this.leaf(frame.start, i, frame.object ? "object" : "array");
    return i;
  }

  /** leaf notes the end of a value. */
  private leaf(start: number, end: number, kind: Kind): void {
    if (this.frames.length !== 1 || this.refused !== undefined || !this.frames[0]!.object) return;
    const m = this.members[this.members.length - 1]!;
    m.start = start;
    m.end = end;
    m.kind = kind;
  }

  /** list notes a large value. Of very many it keeps the largest. */
  private list(start: number, end: number): void {
    if (end - start < this.largeFrom) return;
    if (this.large.length === maxLarge) {
      while (this.large.length > maxLarge / 2) {
        this.largeFrom *= 2;
        this.large = this.large.filter((l) => l.end - l.start >= this.largeFrom);
      }
    }
    if (end - start >= this.largeFrom) this.large.push({ start, end });
  }

  /** value scans the value at i, and returns the index behind it, or behind the beginning of a container. */
  private value(i: number): number {
    const src = this.src;
    const c = src[i];
    switch (c) {
      case 0x22: {
        const end = this.string(i, false);
        this.list(i, end);
        this.leaf(i, end, "string");
        return end;
      }
      case 0x7b:
      case 0x5b:
        return this.open(i, c === 0x7b);
      case 0x74:
        return this.word(i, "true", "bool");
      case 0x66:
        return this.word(i, "false", "bool");
      case 0x6e:
        return this.word(i, "null", "null");
    }
    if (c === undefined || (c !== 0x2d && !isDigit(c))) throw unexpected(src, i, "a value");
    const end = this.number(i);
    this.leaf(i, end, "number");
    return end;
  }

  private word(i: number, want: string, kind: Kind): number {
    for (let j = 0; j < want.length; j++) {
      if (this.src[i + j] !== want.charCodeAt(j)) throw unexpected(this.src, i + j, want);
    }
    this.leaf(i, i + want.length, kind);
    return i + want.length;
  }

  private member(at: number): number {
    const src = this.src;
    const lone = this.lone;
    this.lone = false;
    const end = this.string(at, true);
    const replace = this.lone;
    this.lone ||= lone;
    const depth = this.frames.length;
    if (this.refused === undefined) this.key(at, end, depth, replace);
    let i = this.space(end);
    if (src[i] !== 0x3a) throw unexpected(src, i, "':'");
    i = this.space(i + 1);
    return this.value(i);
  }

  private key(at: number, end: number, depth: number, lone: boolean): void {
    const src = this.src;
    const raw = src.subarray(at + 1, end - 1);
    const content = unescape(raw);
    const name = lone ? decode(withoutLoneSurrogates(content)) : textOf(content);
    this.dotted ||= content.indexOf(0x2e) >= 0;
    if (this.openKeys >= maxKeys) {
      this.refuse("too_many_keys", at, `more than ${maxKeys} keys`);
      return;
    }
    this.openKeys++;
    if (!this.frames[depth - 1]!.keys.add(name)) {
      this.refuseKey(content, at);
      return;
    }
    if (depth === 1) this.members.push({ key: name, at, start: 0, end: 0, kind: "null" });
  }

  private refuseKey(content: Uint8Array, at: number): void {
    let dots = "";
    if (content.length > shown) {
      let n = shown;
      while ((content[n]! & 0xc0) === 0x80) n--;
      content = content.subarray(0, n);
      dots = "…";
    }
    this.refuse("duplicate_key", at, `duplicate key ${JSON.stringify(decode(content))}${dots}`);
  }

  /** string scans a string whose quote is at i, and returns the index behind its closing quote. */
  private string(at: number, key: boolean): number {
    const src = this.src;
    let i = at + 1;
    let high = 0;
    for (;;) {
      const c = src[i];
      if (c === undefined) throw unexpected(src, i, `'"'`);
      if (c === 0x22) break;
      if (c === 0x5c) {
        if (isShortEscape(src[i + 1])) i += 2;
        else i = this.unicodeEscape(i, key);
      } else if (c < 0x20) {
        throw unexpected(src, i, "an escape for a control character");
      } else {
        high |= c;
        i++;
      }
    }
    if (high >= 0x80) this.checkUTF8(at + 1, i);
    return i + 1;
  }

  private unicodeEscape(i: number, key: boolean): number {
    const src = this.src;
    if (src[i + 1] !== 0x75) throw this.badEscape(i + 1);
    const r = hex4(src, i + 2);
    if (!r.ok) throw this.badEscape(r.next);
    if (r.rune === 0 && key) this.refuse("nul_character", i, "\\u0000 in a key");
    if (r.rune >= 0xdc00 && r.rune <= 0xdfff) this.lone = true;
    else if (r.rune >= 0xd800 && r.rune <= 0xdbff) {
      const low = escapedLow(src, r.next);
      if (low.ok) return low.next;
      this.lone = true;
    }
    return r.next;
  }

  private badEscape(i: number): Structure {
    const c = this.src[i];
    if (c === undefined) return unexpected(this.src, i, `'"'`);
    if (c < 0x20 && this.src[i - 1] !== 0x5c) return unexpected(this.src, i, "an escape for a control character");
    return unexpected(this.src, i, "an escape");
  }

  private checkUTF8(from: number, end: number): void {
    const src = this.src;
    for (;;) {
      from += validUTF8(src, from, end);
      if (from >= end) return;
      if (!(from + 3 <= end && encodedSurrogate(src, from))) {
        const byte = src[from]!.toString(16).padStart(2, "0");
        this.refuse("invalid_utf8", from, `invalid UTF-8 (byte 0x${byte}) in a string`);
        return;
      }
      this.lone = true;
      from += 3;
    }
  }

  private number(start: number): number {
    const { end, state } = scanNumber(this.src, start);
    if (state === "digit") throw unexpected(this.src, end, "a digit");
    if (state === "zeros") throw unexpected(this.src, end, "a number without leading zeros");
    if (state === "big") {
      let digits = decode(this.src.subarray(start, Math.min(end, start + shown)));
      if (end > start + shown) digits += "…";
      if (this.refusedAt > start) {
        this.refusedAt = start;
        this.refused = new Rejection(
          "number_out_of_range",
          `number ${digits} at byte ${start} does not fit 64 bits, send it as a string`,
        );
      }
    }
    return end;
  }
}

const isDigit = (c: number | undefined): boolean => c !== undefined && c >= 0x30 && c <= 0x39;

/** textOf decodes a key. Most are short and ASCII. */
function textOf(b: Uint8Array): string {
  if (b.length > 64) return decode(b);
  let s = "";
  for (const c of b) {
    if (c >= 0x80) return decode(b);
    s += String.fromCharCode(c);
  }
  return s;
}

type NumberState = "fits" | "big" | "digit" | "zeros";

function scanNumber(src: Uint8Array, begin: number): { end: number; state: NumberState } {
  let i = begin;
  if (src[i] === 0x2d) i++;
  const from = i;
  while (isDigit(src[i])) i++;
  const whole = i - from;
  if (whole === 0) return { end: i, state: "digit" };
  if (whole > 1 && src[from] === 0x30) return { end: from + 1, state: "zeros" };
  const integer = src[i] !== 0x2e && (src[i]! | 0x20) !== 0x65;
  if (integer) {
    if (whole >= 19 && integerOverflows(decode(src.subarray(begin, i)))) return { end: i, state: "big" };
    return { end: i, state: "fits" };
  }
  if (src[i] === 0x2e) {
    const digits = ++i;
    while (isDigit(src[i])) i++;
    if (i === digits) return { end: i, state: "digit" };
  }
  if (src[i] !== undefined && (src[i]! | 0x20) === 0x65) {
    i++;
    if (src[i] === 0x2b || src[i] === 0x2d) i++;
    const digits = i;
    while (isDigit(src[i])) i++;
    if (i === digits) return { end: i, state: "digit" };
  }
  // JavaScript rounds as the receiver does: what is infinite here is infinite there.
  const fits = Number.isFinite(Number(decode(src.subarray(begin, i))));
  return { end: i, state: fits ? "fits" : "big" };
}

function integerOverflows(text: string): boolean {
  const negative = text.startsWith("-");
  const limit = negative ? "9223372036854775808" : "18446744073709551615";
  const digits = negative ? text.slice(1) : text;
  return digits.length > limit.length || (digits.length === limit.length && digits > limit);
}

/** scanObject scans the object at the start of src. It throws a Structure if src cannot be read to its end. */
export function scanObject(src: Uint8Array, maxDepth: number, largeFrom: number): Scan {
  const scan = new Scanner(src, maxDepth, largeFrom).object();
  scan.large.sort((a, b) => a.start - b.start || b.end - a.end);
  return scan;
}

/** contentOf is the content of a string, or the digits of a number. */
export function contentOf(text: Uint8Array, m: Member): Uint8Array {
  if (m.kind === "string") return unescape(text.subarray(m.start + 1, m.end - 1));
  return text.subarray(m.start, m.end);
}

/** stringEnd is where the quote is that ends a string whose content begins at src[i]. The text need not be valid. */
export function stringEnd(src: Uint8Array, i: number): number {
  while (i < src.length && src[i] !== 0x22) i += src[i] === 0x5c ? 2 : 1;
  return Math.min(i, src.length + 1);
}

/** extent is where the value at the start of src ends, by its brackets and strings alone; 0 if it does not. */
export function extent(src: Uint8Array): number {
  let depth = 0;
  for (let i = 0; i < src.length; i++) {
    switch (src[i]) {
      case 0x22:
        i = stringEnd(src, i + 1);
        if (i >= src.length) return 0;
        break;
      case 0x7b:
      case 0x5b:
        depth++;
        continue;
      case 0x7d:
      case 0x5d:
        if (depth === 0) return i;
        depth--;
        break;
      case 0x2c:
      case 0x20:
      case 0x09:
      case 0x0d:
      case 0x0a:
        if (depth === 0) return i;
        continue;
      default:
        continue;
    }
    if (depth === 0) return i + 1;
  }
  return depth === 0 ? src.length : 0;
}

/**
 * sharedPath returns a path that two values of an object have where keys are joined by dots: {"a.b":1,"a":{"b":2}} has
 * a.b twice. ClickHouse's JSON type joins them so. undefined: there is none.
 */
export function sharedPath(row: Uint8Array): string | undefined {
  let found: string | undefined;
  const walk = (value: unknown, path: string | undefined, seen: Set<string>): void => {
    if (value === null || found !== undefined) return;
    if (typeof value === "object" && !Array.isArray(value)) {
      for (const [key, v] of Object.entries(value as Record<string, unknown>)) {
        walk(v, path === undefined ? key : path + "." + key, seen);
      }
      return;
    }
    if (Array.isArray(value)) for (const v of value) walk(v, undefined, new Set());
    if (path === undefined) return;
    if (seen.has(path)) found ??= path;
    seen.add(path);
  };
  walk(JSON.parse(decode(row)), undefined, new Set());
  return found;
}

/** tooLarge rejects the event at the start of src, and says how many bytes it has. */
export function tooLarge(src: Uint8Array, limit: number): { n: number; error: Rejection } {
  const n = extent(src);
  if (n > 0) {
    return { n, error: new Rejection("event_too_large", `the event has ${n} bytes, the limit is ${limit}`) };
  }
  return {
    n: src.length,
    error: new Structure(
      `unexpected end of JSON at byte ${src.length}, in an event beyond the limit of ${limit} bytes`,
      src.length,
    ),
  };
}
