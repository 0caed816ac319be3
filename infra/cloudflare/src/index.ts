// The edge receiver: POST /v1/events in a Worker. It judges events as the receiver does, and hands them to a shard,
// which brings them to the bucket (MODE store) or to a receiver (MODE forward).

import { type Head, decompress, headOf, lengthOf, readSent, smallLimit } from "./bodies";
import type { Append, Appended, Lines, Shard } from "./shard";
import { clip, concat, encode, Writer } from "./bytes";
import { type Code, Rejection, reject, rowOf } from "./codes";
import { appendLine, type Event, judge, type Judged, type Reference, type Reject } from "./events";
import {
  appendFailure,
  clientOf,
  type Failure,
  failuresOf,
  ObjectWriter,
  type Origin,
  originOf,
  rawBlob,
} from "./failures";
import { type Attempt, forward } from "./forward";
import { newRequestId } from "./ids";
import {
  checkSettings,
  type Durability,
  durabilityOf,
  entryOf,
  type Grant,
  grantOf,
  headKey,
  missingKey,
} from "./keys";
import { storeBlobs } from "./objects";
import { type Env, type Settings, settingsOf } from "./settings";

export { Shard } from "./shard";

const path = "/v1/events";
const retryAfter = "5"; // seconds
const maxListed = 100;
const maxContext = 512;

export default {
  async fetch(request, env): Promise<Response> {
    let settings: Settings;
    try {
      settings = settingsOf(env);
    } catch (e) {
      console.error(JSON.stringify({ message: "wrong setting", error: (e as Error).message }));
      return new Response("the Worker has a wrong setting, see its log\n", {
        status: 503,
        headers: { "Retry-After": retryAfter },
      });
    }
    const response = await serve(request, env, settings);
    const origin = request.headers.get("Origin");
    if (origin !== null && (settings.origins.includes("*") || settings.origins.includes(origin))) {
      response.headers.set("Access-Control-Allow-Origin", origin);
      response.headers.set("Access-Control-Allow-Credentials", "true");
      response.headers.set("Access-Control-Expose-Headers", "Retry-After");
      response.headers.append("Vary", "Origin");
    }
    return response;
  },
} satisfies ExportedHandler<Env>;

async function serve(request: Request, env: Env, settings: Settings): Promise<Response> {
  const url = new URL(request.url);
  if (url.pathname === path && request.method === "OPTIONS") return preflight(request);
  const intake = new Intake(request, url, env, settings);
  try {
    return await intake.serve();
  } catch (e) {
    if (e instanceof Rejection) return await intake.refuse(e);
    console.error(JSON.stringify({ message: "request failed", request_id: intake.id, error: String(e) }));
    return await intake.refuse(
      reject("unavailable", "events cannot be stored now, and none of this request was accepted: send it again"),
    );
  }
}

function preflight(request: Request): Response {
  const asked = request.headers.get("Access-Control-Request-Headers");
  return new Response(null, {
    status: 204,
    headers: {
      Allow: "POST, OPTIONS",
      "Access-Control-Allow-Methods": "POST, OPTIONS",
      "Access-Control-Max-Age": "86400",
      "Access-Control-Allow-Headers": asked ?? "Authorization, Content-Type, Content-Encoding, X-API-Key",
    },
  });
}

/** Outcome is what an answer says. */
interface Outcome {
  readonly status: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly sampled?: number;
  readonly object?: string;
  readonly errors?: ReadonlyArray<{ readonly index: number; readonly code: string; readonly message: string }>;
  readonly error?: { readonly code: string; readonly message: string };
}

/** Intake is one request's life. */
class Intake {
  readonly id = newRequestId();
  private readonly now = Date.now();
  private grant: (Grant & { durability: Durability }) | undefined;
  private project = ""; // that the key names, even if it may not send
  private asked: Durability | undefined;
  private sent: Uint8Array | undefined; // the body, once it is read
  private missing = ", for they were not read to the end"; // why a failure record has no bytes

  constructor(
    private readonly request: Request,
    private readonly url: URL,
    private readonly env: Env,
    private readonly settings: Settings,
  ) {}

  async serve(): Promise<Response> {
    const { request, settings } = this;
    if (this.url.pathname !== path) throw reject("not_found", `there is nothing here: send events to POST ${path}`);
    if (request.method !== "POST") {
      throw reject("method_not_allowed", `method ${JSON.stringify(request.method)}: send events by POST`);
    }
    let head: Head;
    try {
      head = await this.admit();
    } catch (e) {
      await this.keepBody();
      throw e;
    }
    const small = this.grant!.small;
    const limit = small ? settings.smallBody : settings.maxBody;
    const tooLarge = small && (lengthOf(request) ?? 0) > limit;
    this.sent = await readSent(request, limit).catch((e: unknown) => {
      throw tooLarge ? smallLimit(limit) : e;
    });
    const body = decompress(this.sent, head.encoding, limit, small);
    const judged = judge(body, head.lines, this.project, this.now, settings.limits);
    if (judged.events.length === 0) {
      await this.append({}, judged.rejects);
      return this.answer(this.outcome(judged));
    }
    return settings.mode === "store" ? await this.store(judged) : await this.forward(judged);
  }

  /** admit checks key, durability and head before a byte of the body is read. */
  private async admit(): Promise<Head> {
    const key = headKey(this.request, this.url);
    if (key === undefined) throw missingKey();
    this.asked = durabilityOf(this.url);
    const entry = await entryOf(this.env, key, this.now);
    this.project = entry.project;
    this.grant = grantOf(entry, this.asked);
    const head = headOf(this.request.headers);
    checkSettings(entry, this.settings);
    return head;
  }

  /** store hands events to their shard, which brings them to the bucket. */
  private async store(judged: Judged): Promise<Response> {
    const { events } = judged;
    const blobs = events.flatMap((e) => e.row.blobs);
    const references = await storeBlobs(this.env.BUCKET, "events", blobs, this.now, this.settings.name, this.id);
    const object = this.grant!.durability === "object";
    const appended = await this.append({ events: this.lines(events, references), object }, judged.rejects);
    if (object && appended.object === undefined) {
      throw reject(
        "not_stored_yet",
        "the events are in the write-ahead log but not in the bucket yet; they will be " +
          "stored, and a resend with the same event_id counts once",
      );
    }
    return this.answer({ ...this.outcome(judged), ...(object ? { status: 200, object: appended.object! } : {}) });
  }

  private lines(events: readonly Event[], references: readonly Reference[]): Lines {
    const context = contextOf(this.request);
    const w = new Writer(events.length * 512);
    let at = 0;
    for (const e of events) {
      appendLine(w, e, this.project, this.now, context, references.slice(at, at + e.row.blobs.length));
      at += e.row.blobs.length;
    }
    return { data: w.copy(), rows: events.length };
  }

  /** forward sends events to the receiver, or keeps them for it if it is away. */
  private async forward(judged: Judged): Promise<Response> {
    const { env, settings } = this;
    const { events, rejects } = judged;
    const newline = encode("\n");
    const durability = this.asked ?? (this.grant!.durability === "object" ? "object" : undefined);
    const forwarded = {
      project: this.project,
      client: clientOf(this.request),
      events: events.length,
      data: concat(events.flatMap((e) => [e.sent, newline])),
      ...(durability === undefined ? {} : { durability }),
    };
    const shard = this.shard();
    if (away.has(shard) && (await this.stub(shard).waitingRequests()) === 0) away.delete(shard);
    if (!away.has(shard)) {
      const attempt = await forward(env, settings, forwarded);
      if (!attempt.again) {
        await this.append({}, rejects);
        return this.relay(judged, attempt);
      }
      if (attempt.limited !== undefined) return limited(attempt.limited);
      console.error(JSON.stringify({ message: "receiver is away", shard, error: attempt.why }));
    }
    if (durability === "object") {
      throw reject(
        "unavailable",
        "the receiver cannot be reached, and durability object cannot be promised: send it again",
      );
    }
    away.add(shard);
    await this.append({ forward: forwarded }, rejects);
    return this.answer(this.outcome(judged));
  }

  /** relay is the receiver's answer, with what was rejected here. */
  private relay(judged: Judged, attempt: Attempt): Response {
    const { refused, answer } = attempt;
    if (refused !== undefined || answer === undefined) {
      const code = refused?.code ?? "unavailable";
      return this.answer({
        status: rowOf(code as Code)?.status ?? 400,
        accepted: 0,
        rejected: 0,
        error: { code, message: refused?.message ?? "" },
      });
    }
    const errors = [
      ...judged.rejects.map(({ index, code, message }) => ({ index, code: code as string, message })),
      ...(answer.errors ?? []).map((e) => ({ ...e, index: judged.indexes[e.index] ?? e.index })),
    ].sort((a, b) => a.index - b.index);
    const rejected = judged.rejects.length + answer.rejected;
    return this.answer({
      status: answer.status,
      accepted: answer.accepted,
      rejected,
      errors,
      ...(answer.sampled === undefined ? {} : { sampled: answer.sampled }),
      ...(answer.object === undefined ? {} : { object: answer.object }),
    });
  }

  private outcome(judged: Judged): Outcome {
    const { events, rejects } = judged;
    const status = events.length === 0 && rejects.length > 0 ? 400 : 202;
    return { status, accepted: events.length, rejected: rejects.length, errors: rejects };
  }

  /** append hands events and failure records to the request's shard: all of them are kept, or nothing. */
  private async append(
    a: Pick<Append, "events" | "forward" | "object">,
    rejects: readonly Reject[],
  ): Promise<Appended> {
    const errors = await this.failureLines(failuresOf(rejects));
    if (a.events === undefined && a.forward === undefined && errors === undefined) return { kept: true };
    const shard = this.shard();
    const message: Append = { ...a, shard, received: this.now, ...(errors === undefined ? {} : { errors }) };
    let appended: Appended;
    try {
      appended = await this.stub(shard).append(message);
    } catch (e) {
      // The shard was restarted or moved. The events have their ids, so what it has already counts once.
      if (!(e as { retryable?: boolean }).retryable || (e as { overloaded?: boolean }).overloaded)
        throw this.overloaded(e);
      appended = await this.stub(shard).append(message);
    }
    if (!appended.kept)
      throw reject("unavailable", "events cannot be stored now, and none of this request was accepted: send it again");
    return appended;
  }

  private overloaded(e: unknown): unknown {
    if (!(e as { overloaded?: boolean }).overloaded) return e;
    return reject("busy", "too many requests are in memory now; send it again");
  }

  /** failureLines are failure records as lines of the errors pipeline. */
  private async failureLines(failures: readonly Failure[]): Promise<Lines | undefined> {
    if (failures.length === 0) return undefined;
    const origin: Origin = originOf(this.request, this.url, this.now, this.id, this.project);
    const blobs = failures.map((f) => rawBlob(f, this.settings.errorBlobThreshold));
    const large = blobs.filter((b) => b !== undefined);
    const references = await storeBlobs(this.env.BUCKET, "errors", large, this.now, this.settings.name, this.id);
    const w = new Writer(failures.length * 512);
    failures.forEach((f, i) => appendFailure(w, f, origin, blobs[i] === undefined ? undefined : references.shift()));
    return { data: w.copy(), rows: failures.length };
  }

  /**
   * shard names the Durable Object of the request. The project's hash says where its shards begin, and the client's
   * address which of them it is, so that the events of a client keep their order.
   */
  private shard(): string {
    const { name, shards, spread } = this.settings;
    const n = (hash(this.project) + (hash(clientOf(this.request).ip) % spread)) % shards;
    return `${name}-${n}`;
  }

  private stub(shard: string): DurableObjectStub<Shard> {
    return this.env.SHARD.get(this.env.SHARD.idFromName(shard));
  }

  /** keepBody reads the body of a request that is rejected by its head, so that its failure record has the bytes. */
  private async keepBody(): Promise<void> {
    const { smallBody, maxBody } = this.settings;
    try {
      this.sent = await readSent(this.request, this.project === "" || this.grant?.small ? smallBody : maxBody);
    } catch (e) {
      this.missing = ": " + (e as Error).message;
    }
  }

  /** refuse answers a request that is rejected as a whole, and keeps a failure record of it. */
  async refuse(r: Rejection): Promise<Response> {
    const row = rowOf(r.code);
    if (row.kept) {
      try {
        await this.keepRefused(r);
      } catch (e) {
        console.error(
          JSON.stringify({ message: "failure record lost", request_id: this.id, code: r.code, error: String(e) }),
        );
      }
    }
    return this.answer({ status: row.status, accepted: 0, rejected: 0, error: { code: r.code, message: r.message } });
  }

  private async keepRefused(r: Rejection): Promise<void> {
    const raw = this.sent ?? new Uint8Array(0);
    if (this.project === "" && !strangers.take(raw.length + 1024, this.settings.anonymousRate)) return;
    const message = this.sent === undefined ? `${r.message}; its bytes are not kept${this.missing}` : r.message;
    const contentEncoding = clip(this.request.headers.get("Content-Encoding") ?? "", 1024);
    const errors = await this.failureLines([{ code: r.code, message, raw, index: -1, contentEncoding }]);
    const shard = this.shard();
    await this.stub(shard).append({ shard, received: this.now, errors: errors! });
  }

  private answer(o: Outcome): Response {
    const w = new ObjectWriter();
    w.number("accepted", o.accepted);
    w.number("rejected", o.rejected);
    if ((o.sampled ?? 0) > 0) w.number("sampled", o.sampled!);
    w.text("request_id", this.id);
    if (o.status === 200) w.text("object", o.object ?? "");
    if (o.error !== undefined) w.raw("error", errorOf(o.error));
    else if (o.rejected > 0) {
      const list = new Writer().text("[");
      (o.errors ?? []).slice(0, maxListed).forEach((e, i) => list.text(i > 0 ? "," : "").bytes(errorOf(e)));
      w.raw("errors", list.text("]").copy());
      if (o.rejected > maxListed) w.number("errors_omitted", o.rejected - maxListed);
    }
    const headers = new Headers({ "Content-Type": "application/json" });
    const row = o.error === undefined ? undefined : rowOf(o.error.code as Code);
    if (row?.retry) headers.set("Retry-After", retryAfter);
    if (o.status === 401) headers.set("WWW-Authenticate", 'Bearer realm="penstock"');
    if (o.status === 405) headers.set("Allow", "POST, OPTIONS");
    return new Response(concat([w.end(), encode("\n")]), { status: o.status, headers });
  }
}

function errorOf(e: { readonly index?: number; readonly code: string; readonly message: string }): Uint8Array {
  const w = new ObjectWriter();
  if (e.index !== undefined) w.number("index", e.index);
  w.text("code", e.code);
  w.quoted("message", encode(e.message));
  return w.end();
}

/** contextOf is what is known of the client, for all events of a request. */
function contextOf(request: Request): Uint8Array {
  const { ip, userAgent, country } = clientOf(request);
  const w = new ObjectWriter();
  w.quoted("ip", encode(ip));
  w.text("user_agent", clip(userAgent, maxContext));
  w.text("country", clip(country, maxContext));
  return w.end();
}

/** limited is the receiver's 429 for the client: nothing is kept, and the same request fits later. */
function limited(l: { readonly headers: Headers; readonly body: Uint8Array }): Response {
  const headers = new Headers({ "Content-Type": "application/json" });
  for (const name of ["Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"]) {
    const value = l.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  return new Response(l.body, { status: 429, headers });
}

/** hash is FNV-1a of a text. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (const c of encode(text)) h = Math.imul(h ^ c, 0x01000193) >>> 0;
  return h;
}

/** Budget bounds what one isolate stores of requests without a known key. */
class Budget {
  private left = 0;
  private at = 0;

  take(bytes: number, perSecond: number): boolean {
    const now = Date.now();
    this.left =
      this.at === 0 ? 16 * perSecond : Math.min(16 * perSecond, this.left + ((now - this.at) / 1000) * perSecond);
    this.at = now;
    if (bytes > this.left) return false;
    this.left -= bytes;
    return true;
  }
}

const strangers = new Budget();

/**
 * away has the shards that have requests for the receiver, as far as this isolate knows. Later requests
 * queue behind them, so that they do not arrive first.
 */
const away = new Set<string>();
