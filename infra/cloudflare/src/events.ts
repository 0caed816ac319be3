// Judging the events of a body: receiver/protocol/native, decode.go and event.go.

import { decode, encode, goQuote, startsWith, trimSpace, withoutLoneSurrogates, Writer } from "./bytes";
import { type Code, Rejection, reject } from "./codes";
import { newUUIDv7, parseUUID, uuidv5 } from "./ids";
import {
  type Blob,
  maxRow,
  memberPart,
  type Part,
  largeFrom,
  type Row,
  spreadPart,
  TooLong,
  withHoles,
  writeRow,
} from "./rows";
import { contentOf, type Member, type Scan, scanObject, sharedPath, Structure, tooLarge } from "./scanner";
import { parseEpoch, parseTime, timeOf } from "./times";
import { Values } from "./values";

const maxName = 256;
const maxId = 1024;

/** maxRows limits what the rows of one request take, in bytes: a message to a Durable Object has 32 MiB at most. */
export const maxRows = 24 << 20;

/** Limits are those of docs/reference/configuration.md, section receiver. */
export interface Limits {
  readonly maxEvent: number; // bytes of one event
  readonly maxEvents: number; // in one request
  readonly maxDepth: number; // of an event's JSON
  readonly blobThreshold: number; // bytes of a value that leaves its row; 0: none does
}

/** Event is an event that was accepted. */
export interface Event {
  readonly id: string;
  readonly name: Uint8Array;
  readonly session: Uint8Array;
  readonly user: Uint8Array;
  readonly timestamp: number | null; // ms; null: the client gave an id but no time
  readonly row: Row;
  readonly sent: Uint8Array; // as it was sent, with the id in it
}

/** Reject is an event that was rejected. */
export interface Reject {
  readonly index: number;
  readonly code: Code;
  readonly message: string;
  readonly raw: Uint8Array;
}

export interface Judged {
  readonly events: Event[];
  readonly indexes: number[]; // of the events in the request
  readonly rejects: Reject[];
}

/** judge finds and judges the events of a body. It throws a Rejection of the whole request. */
export function judge(body: Uint8Array, lines: boolean, project: string, now: number, limits: Limits): Judged {
  if (startsWith(body, "\xef\xbb\xbf")) body = body.subarray(3);
  body = trimSpace(body);
  if (body.length === 0) throw reject("empty_body", "the body is empty");
  const out: Judged = { events: [], indexes: [], rejects: [] };
  const values = new Values(body, lines);
  const judgement = new Judgement(project, now, limits);
  let rows = 0;
  for (let index = 0; ; index++) {
    const next = values.next();
    if (next === undefined) return out;
    if (index >= limits.maxEvents) {
      throw reject("too_many_events", `more than ${limits.maxEvents} events in one request`);
    }
    if (rows > maxRows) {
      throw reject(
        "too_much",
        `more than ${maxRows} bytes of one request would stay in rows: send fewer events in one`,
      );
    }
    let raw = next.text;
    let error: Rejection | undefined = next.error;
    if (error === undefined) {
      const made = judgement.event(next.text);
      let n = made.end;
      if (made.error instanceof Structure) {
        const skipped = values.skip(n);
        n = skipped.n;
        error = skipped.found ? made.error : beyond(made.error, n);
      } else {
        n = values.take(n);
        error = made.error;
      }
      raw = next.text.subarray(0, n);
      if (error === undefined && made.event !== undefined) {
        out.events.push(made.event);
        out.indexes.push(index);
        rows += made.event.row.size;
      }
    }
    if (error !== undefined) {
      out.rejects.push({ index, code: error.code, message: error.message, raw: trimSpace(raw) });
    }
  }
}

const beyond = (e: Rejection, n: number): Rejection =>
  reject(e.code, `${e.message}; the ${n} bytes up to the next event that can be found are rejected with it`);

interface Made {
  readonly end: number;
  readonly event?: Event;
  readonly error?: Rejection;
}

class Judgement {
  private readonly largeFrom: number;

  constructor(
    private readonly project: string,
    private readonly now: number,
    private readonly limits: Limits,
  ) {
    this.largeFrom = largeFrom(limits.blobThreshold);
  }

  /** event judges the event at the start of src. */
  event(src: Uint8Array): Made {
    const limit = this.limits.maxEvent;
    let end = 0;
    try {
      let scan: Scan;
      try {
        scan = this.scan(src.subarray(0, limit + 1));
        end = scan.end;
      } catch (e) {
        if (!(e instanceof Structure)) throw e;
        if (e.offset > limit) return tooLong(src, limit);
        return { end: e.offset, error: e };
      }
      if (end > limit) return tooLong(src, limit);
      if (scan.error !== undefined) return { end, error: scan.error };
      const sent = src.subarray(0, end);
      let text = sent;
      if (scan.lone) {
        text = withoutLoneSurrogates(text);
        scan = this.scan(text);
        if (scan.error !== undefined) return { end, error: scan.error };
      }
      return { end, event: this.make(text, scan, sent) };
    } catch (e) {
      if (e instanceof Rejection) return { end, error: e };
      throw e;
    }
  }

  private scan(text: Uint8Array): Scan {
    return scanObject(text, this.limits.maxDepth, this.largeFrom);
  }

  private make(text: Uint8Array, scan: Scan, sent: Uint8Array): Event {
    const d = draft(text, scan.members);
    if (d.error !== undefined) throw d.error;
    if (d.name.length === 0) {
      throw reject(
        "missing_name",
        `the event has no name: it needs a member "name" that is a string of 1 to ${maxName} bytes`,
      );
    }
    if (d.name.length > maxName) {
      throw reject("field_too_long", `"name" has ${d.name.length} bytes, the limit is ${maxName}`);
    }
    let timestamp = d.timestamp;
    let id: string;
    let withId = sent;
    if (d.id.length > 0) {
      id = parseUUID(decode(d.id)) ?? uuidv5(this.project, d.id);
    } else {
      id = newUUIDv7(this.now);
      timestamp ??= this.now; // no client can send this event a second time
      withId = withEventId(sent, d.idMember, id);
    }
    const { parts } = d;
    if (d.mixed) {
      const checked = writeRow(text, parts, scan.large, this.limits.blobThreshold);
      if (!(checked instanceof TooLong)) checkMixed(withHoles(checked));
    }
    const row = writeRow(text, parts, scan.large, this.limits.blobThreshold);
    if (row instanceof TooLong) {
      throw reject(
        "event_too_large",
        `${row.left} bytes are left of the event when its values above ` +
          `${row.threshold} are taken out, the limit is ${maxRow}`,
      );
    }
    if (scan.dotted) {
      const path = sharedPath(withHoles(row));
      if (path !== undefined) {
        throw reject(
          "duplicate_key",
          `two properties have the path ${goQuote(path, 200)}, because keys are stored joined by dots; ` +
            "rename one of them",
        );
      }
    }
    return { id, name: d.name, session: d.session, user: d.user, timestamp, row, sent: withId };
  }
}

function tooLong(src: Uint8Array, limit: number): Made {
  const { n, error } = tooLarge(src, limit);
  return { end: n, error };
}

function checkMixed(row: Uint8Array): void {
  const scan = scanObject(row, 1 << 20, Infinity);
  if (scan.error === undefined) return;
  const what = scan.error.message; // the byte that it names is none of the client's
  throw reject("duplicate_key", `${what.slice(0, what.lastIndexOf(" at byte "))}: in "properties" and beside it`);
}

const none = new Uint8Array(0);

interface Draft {
  name: Uint8Array;
  session: Uint8Array;
  user: Uint8Array;
  id: Uint8Array;
  idMember?: Member;
  timestamp: number | null;
  parts: Part[];
  mixed: boolean;
  error?: Rejection;
}

/** draft takes the members that are columns, and all others as properties. */
function draft(text: Uint8Array, members: readonly Member[]): Draft {
  const d: Draft = { name: none, session: none, user: none, id: none, timestamp: null, parts: [], mixed: false };
  let nested: Member | undefined;
  for (const m of members) {
    try {
      switch (m.key) {
        case "name":
          d.name = column(text, m, Infinity);
          break;
        case "timestamp":
          d.timestamp = memberTime(text, m);
          break;
        case "session_id":
          d.session = column(text, m, maxId);
          break;
        case "user_id":
          d.user = column(text, m, maxId);
          break;
        case "event_id":
          d.idMember = m;
          d.id = column(text, m, maxId);
          if (d.id.length > 0 && parseUUID(decode(d.id)) === undefined) d.parts.push(memberPart(m));
          break;
        case "properties":
          if (m.kind === "object") nested = m;
          else if (m.kind !== "null") d.parts.push(memberPart(m));
          break;
        default:
          d.parts.push(memberPart(m));
      }
    } catch (e) {
      if (!(e instanceof Rejection)) throw e;
      d.error ??= e;
    }
  }
  if (nested !== undefined) {
    d.mixed = d.parts.length > 0;
    d.parts.push(spreadPart(nested));
  }
  return d;
}

/** column is the content of a member for a column. Numbers are their digits; null is absent. */
function column(text: Uint8Array, m: Member, limit: number): Uint8Array {
  if (m.kind === "null") return none;
  if (m.kind !== "string" && m.kind !== "number") {
    throw reject("wrong_type", `${goQuote(m.key)} is of type ${m.kind}, want a string`);
  }
  const content = contentOf(text, m);
  if (content.length > limit) {
    throw reject("field_too_long", `${goQuote(m.key)} has ${content.length} bytes, the limit is ${limit}`);
  }
  return content;
}

function memberTime(text: Uint8Array, m: Member): number | null {
  if (m.kind === "null") return null;
  if (m.kind !== "string" && m.kind !== "number") {
    throw reject("wrong_type", `${goQuote(m.key)} is of type ${m.kind}, want a string or a number`);
  }
  const value = decode(contentOf(text, m));
  try {
    return m.kind === "number" ? parseEpoch(value) : parseTime(value);
  } catch (e) {
    throw reject("invalid_timestamp", `${goQuote(m.key)} is ${goQuote(value, 40)}: ${(e as Error).message}`);
  }
}

/** withEventId is an event's text with an id that its client did not give. */
function withEventId(text: Uint8Array, member: Member | undefined, id: string): Uint8Array {
  const w = new Writer(text.length + 64);
  if (member !== undefined) {
    // null, or an empty text
    return w.bytes(text.subarray(0, member.start)).text(`"${id}"`).bytes(text.subarray(member.end)).copy();
  }
  const brace = text.indexOf(0x7b) + 1;
  return w.bytes(text.subarray(0, brace)).text(`"event_id":"${id}",`).bytes(text.subarray(brace)).copy();
}

/** Reference is where a blob is. */
export interface Reference extends Blob {
  readonly object: string;
  readonly first: number; // byte in the object
  readonly sha256: string;
}

/**
 * appendLine writes an event as a line of an object, without its sequence number and the receiver's name: the Durable
 * Object writes those, with the brace, in front of it.
 */
export function appendLine(
  w: Writer,
  e: Event,
  project: string,
  now: number,
  context: Uint8Array,
  references: readonly Reference[],
): void {
  w.text(`"event_id":"${e.id}","project":`).quotedText(project).text(',"name":').quoted(e.name);
  w.text(`,"timestamp":${e.timestamp === null ? "null" : `"${timeOf(e.timestamp)}"`}`);
  w.text(`,"received_at":"${timeOf(now)}","session_id":`).quoted(e.session);
  w.text(',"user_id":').quoted(e.user).text(',"properties":');
  e.row.texts.forEach((t, i) => {
    const r = references[i - 1];
    if (r !== undefined) appendReference(w, r);
    w.bytes(t);
  });
  w.text(',"context":').bytes(context).text("}\n");
}

function appendReference(w: Writer, r: Reference): void {
  w.text(`{"$blob":{"object":"${r.object}","range":[${r.first},${r.first + r.data.length - 1}],`);
  w.text(`"bytes":${r.data.length},"sha256":"${r.sha256}","content_type":`).quoted(encode(r.contentType));
  w.text(`,"kind":"${r.kind}"}}`);
}
