// Bytes, and JSON strings in them.

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: false, ignoreBOM: true });

export const encode = (text: string): Uint8Array => encoder.encode(text);

/** decode reads UTF-8. Invalid bytes become U+FFFD. */
export const decode = (bytes: Uint8Array): string => decoder.decode(bytes);

export const hex = (bytes: Uint8Array): string => {
  let out = "";
  for (const b of bytes) out += (b + 0x100).toString(16).slice(1);
  return out;
};

export const isSpace = (c: number | undefined): boolean => c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;

/** trimSpace removes JSON space at both ends. */
export function trimSpace(b: Uint8Array): Uint8Array {
  let from = 0;
  let to = b.length;
  while (from < to && isSpace(b[from])) from++;
  while (to > from && isSpace(b[to - 1])) to--;
  return b.subarray(from, to);
}

export function startsWith(b: Uint8Array, prefix: string): boolean {
  if (b.length < prefix.length) return false;
  for (let i = 0; i < prefix.length; i++) if (b[i] !== prefix.charCodeAt(i)) return false;
  return true;
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const p of parts) size += p.length;
  const out = new Uint8Array(size);
  let at = 0;
  for (const p of parts) {
    out.set(p, at);
    at += p.length;
  }
  return out;
}

/** Writer is a buffer that grows. */
export class Writer {
  private buf: Uint8Array;
  length = 0;

  constructor(capacity = 1024) {
    this.buf = new Uint8Array(capacity);
  }

  private room(n: number): void {
    if (this.length + n <= this.buf.length) return;
    const grown = new Uint8Array(Math.max(2 * this.buf.length, this.length + n));
    grown.set(this.buf.subarray(0, this.length));
    this.buf = grown;
  }

  byte(c: number): this {
    this.room(1);
    this.buf[this.length++] = c;
    return this;
  }

  bytes(b: Uint8Array): this {
    this.room(b.length);
    this.buf.set(b, this.length);
    this.length += b.length;
    return this;
  }

  text(s: string): this {
    this.room(3 * s.length);
    this.length += encoder.encodeInto(s, this.buf.subarray(this.length)).written;
    return this;
  }

  /** quoted writes valid UTF-8 as the shortest JSON string. */
  quoted(content: Uint8Array): this {
    this.byte(0x22);
    let from = 0;
    for (let i = 0; i < content.length; i++) {
      const c = content[i]!;
      if (c >= 0x20 && c !== 0x22 && c !== 0x5c) continue;
      this.bytes(content.subarray(from, i)).text(escapeOf(c));
      from = i + 1;
    }
    return this.bytes(content.subarray(from)).byte(0x22);
  }

  /** quotedText writes a text as a JSON string. */
  quotedText(s: string): this {
    return this.quoted(encode(s));
  }

  last(): number | undefined {
    return this.buf[this.length - 1];
  }

  /** view is what was written. It is valid until the next write. */
  view(from = 0): Uint8Array {
    return this.buf.subarray(from, this.length);
  }

  copy(from = 0): Uint8Array {
    return this.buf.slice(from, this.length);
  }

  /** replace changes bytes that were written. */
  replace(from: number, change: (c: number) => number): void {
    for (let i = from; i < this.length; i++) this.buf[i] = change(this.buf[i]!);
  }
}

const named: Readonly<Record<number, string>> = {
  0x22: '\\"',
  0x5c: "\\\\",
  0x08: "\\b",
  0x0c: "\\f",
  0x0a: "\\n",
  0x0d: "\\r",
  0x09: "\\t",
};

const escapeOf = (c: number): string => named[c] ?? "\\u00" + (c + 0x100).toString(16).slice(1);

const shortEscapes: Readonly<Record<number, number>> = {
  0x22: 0x22,
  0x5c: 0x5c,
  0x2f: 0x2f,
  0x62: 0x08,
  0x66: 0x0c,
  0x6e: 0x0a,
  0x72: 0x0d,
  0x74: 0x09,
};

export const isShortEscape = (c: number | undefined): boolean => c !== undefined && c in shortEscapes;

/** hex4 reads the four hex digits of an escape at b[i]. next is the index behind them, or of the first byte that is no digit. */
export function hex4(b: Uint8Array, i: number): { rune: number; next: number; ok: boolean } {
  let rune = 0;
  for (let next = i; next < i + 4; next++) {
    const c = b[next];
    if (c === undefined) return { rune: 0, next, ok: false };
    const low = c | 0x20;
    let digit: number;
    if (c >= 0x30 && c <= 0x39) digit = c - 0x30;
    else if (low >= 0x61 && low <= 0x66) digit = low - 0x61 + 10;
    else return { rune: 0, next, ok: false };
    rune = (rune << 4) | digit;
  }
  return { rune, next: i + 4, ok: true };
}

/** escapedLow reads the escape of a low surrogate at b[i], if there is one. */
export function escapedLow(b: Uint8Array, i: number): { rune: number; next: number; ok: boolean } {
  if (b[i] !== 0x5c || b[i + 1] !== 0x75) return { rune: 0, next: i, ok: false };
  const r = hex4(b, i + 2);
  return { ...r, ok: r.ok && r.rune >= 0xdc00 && r.rune <= 0xdfff };
}

/** unescape returns the content of a JSON string without its quotes: a view of it if it has no escapes. */
export function unescape(content: Uint8Array): Uint8Array {
  let i = content.indexOf(0x5c);
  if (i < 0) return content;
  const out = new Uint8Array(content.length); // no escape is shorter than what it stands for
  let n = 0;
  let from = 0;
  for (; i >= 0; i = content.indexOf(0x5c, from)) {
    out.set(content.subarray(from, i), n);
    n += i - from;
    if (content[i + 1] !== 0x75) {
      out[n++] = shortEscapes[content[i + 1] ?? 0x5c] ?? 0x5c;
      from = i + 2;
      continue;
    }
    const r = hex4(content, i + 2);
    from = r.next;
    let rune = r.rune;
    if (rune >= 0xd800 && rune <= 0xdbff) {
      const low = escapedLow(content, from);
      if (low.ok) {
        rune = 0x10000 + ((rune - 0xd800) << 10) + (low.rune - 0xdc00);
        from = low.next;
      }
    }
    if (rune >= 0xd800 && rune <= 0xdfff) rune = 0xfffd;
    n += encoder.encodeInto(String.fromCodePoint(rune), out.subarray(n)).written;
  }
  out.set(content.subarray(from), n);
  return out.subarray(0, n + content.length - from);
}

/** goQuote is a text in quotes as Go's %q prints it, so that messages equal those of the receiver. */
export function goQuote(text: string | Uint8Array, limit = Infinity): string {
  const s = typeof text === "string" ? text : decode(text);
  let out = '"';
  let n = 0;
  for (const c of s) {
    if (n++ >= limit) break;
    const code = c.codePointAt(0)!;
    if (c === '"' || c === "\\") out += "\\" + c;
    else if (goEscapes[c] !== undefined) out += goEscapes[c];
    else if (code < 0x20 || code === 0x7f) out += "\\x" + code.toString(16).padStart(2, "0");
    else if (code < 0x7f || /[\p{L}\p{M}\p{N}\p{P}\p{S}]/u.test(c)) out += c;
    else if (code < 0x10000) out += "\\u" + code.toString(16).padStart(4, "0");
    else out += "\\U" + code.toString(16).padStart(8, "0");
  }
  return out + '"';
}

const goEscapes: Readonly<Record<string, string>> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
};

/** validUTF8 returns how many bytes of b, from one index to another, are valid UTF-8. */
export function validUTF8(b: Uint8Array, from: number, to: number): number {
  let i = from;
  while (i < to) {
    const c = b[i]!;
    if (c < 0x80) {
      i++;
      continue;
    }
    let size: number;
    let low = 0x80;
    let high = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) size = 2;
    else if (c >= 0xe0 && c <= 0xef) {
      size = 3;
      if (c === 0xe0) low = 0xa0;
      if (c === 0xed) high = 0x9f;
    } else if (c >= 0xf0 && c <= 0xf4) {
      size = 4;
      if (c === 0xf0) low = 0x90;
      if (c === 0xf4) high = 0x8f;
    } else return i - from;
    if (i + size > to || b[i + 1]! < low || b[i + 1]! > high) return i - from;
    for (let j = 2; j < size; j++) if ((b[i + j]! & 0xc0) !== 0x80) return i - from;
    i += size;
  }
  return i - from;
}

/** isUTF8 reports whether all of b is valid UTF-8. */
export const isUTF8 = (b: Uint8Array): boolean => validUTF8(b, 0, b.length) === b.length;

/** encodedSurrogate reports whether a surrogate that was encoded as if it were a character begins at b[i]. */
export const encodedSurrogate = (b: Uint8Array, i: number): boolean =>
  b[i] === 0xed && (b[i + 1]! & 0xe0) === 0xa0 && (b[i + 2]! & 0xc0) === 0x80;

const loneReplacement = encode("\\ufffd");
const encodedFFFD = encode("\ufffd");

/** withoutLoneSurrogates is a copy of a JSON text with U+FFFD in place of its lone surrogates, of the same length. */
export function withoutLoneSurrogates(text: Uint8Array): Uint8Array {
  const out = text.slice();
  for (let i = 0; i < out.length;) {
    let size = 1;
    if (out[i] === 0x5c) {
      size = 2;
      const r = out[i + 1] === 0x75 ? hex4(out, i + 2) : undefined;
      if (r?.ok) {
        size = 6;
        if (r.rune >= 0xd800 && r.rune <= 0xdfff) {
          if (r.rune < 0xdc00 && escapedLow(out, r.next).ok) size = 12;
          else out.set(loneReplacement, i);
        }
      }
    } else if (encodedSurrogate(out, i)) {
      out.set(encodedFFFD, i);
      size = 3;
    }
    i += size;
  }
  return out;
}

/** clip is the beginning of a text, at most limit bytes of UTF-8. */
export function clip(text: string, limit: number): string {
  if (text.length * 3 <= limit) return text;
  const b = encode(text);
  return b.length <= limit ? text : decode(b.subarray(0, limit));
}
