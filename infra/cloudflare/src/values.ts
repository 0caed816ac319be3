// Finding the events of a body, as internal/jsonscan/values.go does: one behind the other, or as elements of arrays.
// Reading goes on behind a broken value if its end can be found by brackets and strings alone, or else at the next
// line that begins like a value. The work is linear in the length of the text.

import { isSpace } from "./bytes";
import { stringEnd, type Structure, unexpected } from "./scanner";

type Place =
  | "outside" // a value or an array of values
  | "first" // of an array: an element or its end
  | "element" // an element, behind a comma
  | "behind" // a comma or the end of the array
  | "somehow"; // any of these, because a broken element may have swallowed some

/** Next is the text from the next value on, or a broken part with its error. */
export interface Next {
  readonly text: Uint8Array;
  readonly error?: Structure;
}

export class Values {
  private at = 0; // the next byte to read
  private limit: number; // a value ends before it
  private place: Place = "outside";
  private again = 0; // how many bytes were read in vain, to be read again
  private strict = false; // too many were: from now on, no value goes beyond its line
  private line = 0; // where a line begins with a value; may lie behind at
  private newline = 0; // 0: not looked for

  /** lines: the text is NDJSON, where what cannot be read is at most the rest of its line. */
  constructor(
    private readonly text: Uint8Array,
    private readonly lines: boolean,
  ) {
    this.limit = text.length;
  }

  /** next finds the next value; take or skip must follow. undefined: there is no more. */
  next(): Next | undefined {
    for (;;) {
      this.space();
      if (this.at === this.text.length) return this.end();
      const c = this.text[this.at];
      if (c === 0x5b && (this.place === "outside" || this.place === "somehow")) {
        this.place = "first";
      } else if (this.place === "outside") {
        return { text: this.text.subarray(this.at, this.limit) };
      } else if (c === 0x5d && this.place !== "element") {
        this.place = "outside";
      } else if (c === 0x2c && (this.place === "behind" || this.place === "somehow")) {
        if (this.place === "behind") this.place = "element";
      } else if (c === 0x5d || c === 0x2c) {
        const error = unexpected(this.text, this.at, "a value");
        if (c === 0x5d) this.place = "outside";
        this.at++;
        return { text: this.text.subarray(this.at - 1, this.at), error };
      } else if (this.place === "behind") {
        const error = unexpected(this.text, this.at, "',' or ']'");
        const rest = this.text.subarray(this.at, this.limit);
        const { n } = this.skip(0);
        return { text: rest.subarray(0, n), error };
      } else {
        return { text: this.text.subarray(this.at, this.limit) };
      }
      this.at++;
    }
  }

  /** end is next at the end of the text, which may be within an array. */
  private end(): Next | undefined {
    const want = { first: "a value or ']'", element: "a value", behind: "',' or ']'", outside: "", somehow: "" }[
      this.place
    ];
    this.place = "outside";
    if (want === "") return undefined;
    return { text: this.text.subarray(this.at), error: unexpected(this.text, this.at, want) };
  }

  private space(): void {
    while (isSpace(this.text[this.at])) this.at++;
    if (this.strict && this.at >= this.limit) this.limit = this.at + this.lineEnd(this.text.subarray(this.at));
  }

  /** take passes the value, which has n bytes, and returns how many bytes were passed. */
  take(n: number): number {
    const rest = this.text.subarray(this.at, this.limit);
    if (this.place === "outside" && this.lines && rest[0] !== 0x7b && !isAlone(rest.subarray(n)))
      n = this.lineEnd(rest);
    this.pass(n);
    return n;
  }

  private pass(n: number): void {
    this.at += n;
    if (this.place === "first" || this.place === "element") this.place = "behind";
  }

  /**
   * skip passes a value that cannot be read; whoever tried has read the given number of bytes. found: what was passed
   * is the value alone.
   */
  skip(read: number): { n: number; found: boolean } {
    const rest = this.text.subarray(this.at, this.limit);
    const line = Math.min(this.nextLine() - this.at, rest.length);
    const inArray = this.place !== "outside";
    let looked = 0;
    let n = line;
    let found = false;
    if (inArray || rest[0] === 0x7b) {
      const element = inArray && (this.place !== "somehow" || rest[0] !== 0x7b);
      const end = skim(rest.subarray(0, line), element);
      found = end >= 0 && (element || inArray || isAlone(rest.subarray(end)));
      n = found ? end : line;
      if (!found) looked = line;
    } else if (rest[0] !== 0x22 && isAlone(rest.subarray(word(rest)))) {
      n = word(rest);
      found = true;
    }
    if (!found) {
      if (this.lines) n = this.lineEnd(rest);
      if (inArray) this.place = "somehow";
    }
    n = Math.max(n, 1);
    this.pass(n);
    this.again += Math.max(0, Math.max(read, looked) - n);
    if (this.again > this.text.length && !this.strict) {
      this.strict = true;
      this.limit = this.at;
    }
    return { n, found };
  }

  /** nextLine is where the next line begins that looks like a value, or the end of the text. */
  private nextLine(): number {
    if (this.line > this.at) return this.line;
    const newline = this.lineBreak();
    for (this.line = this.at + 1; this.line < this.text.length; this.line++) {
      const c = this.text[this.line];
      if ((c === 0x7b || (c === 0x5b && this.lines)) && this.text[this.line - 1] === newline) break;
    }
    return this.line;
  }

  private lineBreak(): number {
    if (this.newline === 0) this.newline = this.text.indexOf(0x0a) >= 0 ? 0x0a : 0x0d;
    return this.newline;
  }

  private lineEnd(part: Uint8Array): number {
    const n = part.indexOf(this.lineBreak());
    return n >= 0 ? n : part.length;
  }
}

/**
 * skim finds the end of the value at the start of the text by its brackets and strings; -1: not found. A bracket that
 * closes an outer one closes those within it as well, and one that closes nothing is passed. An element ends before the
 * comma or the bracket that follows it.
 */
function skim(text: Uint8Array, element: boolean): number {
  const nesting: boolean[] = []; // true: a brace
  let braces = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    switch (c) {
      case 0x22:
        i = stringEnd(text, i + 1);
        break;
      case 0x7b:
      case 0x5b:
        nesting.push(c === 0x7b);
        if (c === 0x7b) braces++;
        break;
      case 0x7d:
      case 0x5d: {
        if (nesting.length === 0 && element && c === 0x5d) return i;
        const brace = c === 0x7d;
        if ((brace ? braces : nesting.length - braces) > 0) {
          for (let top: boolean | undefined; top !== brace;) {
            top = nesting.pop();
            if (top) braces--;
          }
        }
        if (nesting.length === 0 && !element) return i + 1;
        break;
      }
      case 0x2c:
        if (nesting.length === 0 && element) return i;
    }
  }
  return -1;
}

/** word is how many bytes of the text are a bare word, as NaN, -Infinity or undefined. */
function word(text: Uint8Array): number {
  let n = 0;
  for (; n < text.length; n++) {
    const c = text[n]!;
    const low = c | 0x20;
    const letter = low >= 0x61 && low <= 0x7a;
    if (!letter && !(c >= 0x30 && c <= 0x39) && c !== 0x2d && c !== 0x2b && c !== 0x2e && c !== 0x5f) break;
  }
  return n;
}

/** isAlone reports whether an object, an array or the end of the line follows. */
function isAlone(rest: Uint8Array): boolean {
  let i = 0;
  while (rest[i] === 0x20 || rest[i] === 0x09) i++;
  const c = rest[i];
  return c === undefined || c === 0x0d || c === 0x0a || c === 0x7b || c === 0x5b;
}
