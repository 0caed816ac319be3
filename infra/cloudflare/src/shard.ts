// A shard: a Durable Object that keeps events in its SQLite storage until they are in the bucket or at the receiver.
//
// An answer waits until the storage has what was appended (the runtime's output gate), so a 202 is durable. A batch is
// fixed when it is sealed: a crash at any later point leads to the same object under the same key. The conditional PUT
// stores it once, and only then are its rows deleted.

import { DurableObject } from "cloudflare:workers";
import * as zlib from "node:zlib";
import { createHash } from "node:crypto";

import { concat, Writer } from "./bytes";
import { appendFailure, type Origin, rawBlob } from "./failures";
import { type Attempt, type Forwarded, forward } from "./forward";
import { newRequestId } from "./ids";
import { metadataOf, objectKey, type Pipeline, pipelines, putOnce, storeBlobs } from "./objects";
import { type Env, type Settings, settingsOf } from "./settings";

/** Lines are events as lines of an object, without their beginnings. */
export interface Lines {
  readonly data: Uint8Array;
  readonly rows: number;
}

/** Append is what a request brings: all of it is kept, or nothing. */
export interface Append {
  readonly shard: string;
  readonly received: number; // ms
  readonly events?: Lines;
  readonly errors?: Lines;
  readonly forward?: Forwarded; // to be sent to the receiver
  readonly object?: boolean; // wait until the events are in the bucket
}

/** Appended is the result of an append. */
export interface Appended {
  readonly kept: boolean; // false: the shard is full
  readonly object?: string; // the key of the object that the events are in
}

const maxGathered = 8 << 20; // bytes
const maxPiece = 1 << 20; // bytes of a row; SQLite's rows have 2 MB at most
const frameBytes = 128 << 10; // of text in a frame
const smallFrame = 16 << 10;
const minBackoff = 1000;
const maxBackoff = 60_000;
const window = 64; // requests that are forwarded before the next ones are looked at
const mergedBytes = 1 << 20;
const mergedEvents = 5000;
const sendsAtOnce = 6; // connections that one invocation may open

/** Open is the batch of a pipeline that takes events. */
interface Open {
  readonly id: number;
  readonly began: number;
  bytes: number;
  pieces: number;
}

interface Batch {
  readonly id: number;
  readonly pipeline: Pipeline;
  readonly began: number;
  readonly seq: number;
}

/** Waiting is a project whose requests wait for the receiver. */
interface Waiting {
  requests: number;
  failures: number; // in a row
  notBefore: number; // ms
}

export class Shard extends DurableObject<Env> {
  private readonly sql: SqlStorage;
  private readonly settings: Settings;
  private readonly open = new Map<Pipeline, Open>();
  private readonly nextSeq = new Map<Pipeline, number>();
  private readonly waiting = new Map<string, Waiting>();
  private shard = "";
  private alarmAt = Infinity;
  private storing: Promise<void> | undefined;
  private storeFailures = 0;
  private storeNotBefore = 0;
  private draining: Promise<void> | undefined;
  private readonly gathered: Array<{ a: Append; resolve: (batch: number | undefined) => void }> = [];
  private gatheredBytes = 0;
  private committed = 0; // when something was written last
  private readonly stored = new Map<number, string>(); // keys of batches that somebody waits for

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.sql = ctx.storage.sql;
    this.settings = settingsOf(env);
    this.sql.exec(`
      CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS batches (id INTEGER PRIMARY KEY AUTOINCREMENT, pipeline TEXT NOT NULL,
        began INTEGER NOT NULL, seq INTEGER NOT NULL, sealed INTEGER NOT NULL);
      CREATE TABLE IF NOT EXISTS requests (id INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL,
        head TEXT NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL);
      CREATE TABLE IF NOT EXISTS bodies (request INTEGER NOT NULL, id INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (request, id)) WITHOUT ROWID;`);
    this.recover();
    // The alarm is in the storage too. It is set here in case that its handler failed as often as the runtime allows.
    void ctx.blockConcurrencyWhile(async () => {
      this.alarmAt = (await ctx.storage.getAlarm()) ?? Infinity;
      this.schedule();
    });
  }

  /** recover reads what was appended before this instance began. */
  private recover(): void {
    this.shard = String(this.meta("shard") ?? "");
    for (const p of pipelines) {
      const saved = this.meta("seq." + p);
      if (saved !== undefined) this.nextSeq.set(p, Number(saved));
    }
    for (const b of this.batches("sealed >= 0")) {
      const { rows, bytes, pieces } = this.sql
        .exec<{ rows: number; bytes: number; pieces: number }>(
          `SELECT coalesce(sum(rows), 0) rows, coalesce(sum(length(data)), 0) bytes, count(*) pieces FROM ${table(b)}`,
        )
        .one();
      this.nextSeq.set(b.pipeline, Math.max(this.nextSeq.get(b.pipeline) ?? 0, b.seq + rows));
      if (b.sealed === 0) this.open.set(b.pipeline, { id: b.id, began: b.began, bytes, pieces });
    }
    for (const w of this.sql.exec<{ project: string; n: number }>(
      "SELECT project, count(*) n FROM requests GROUP BY project",
    )) {
      this.waiting.set(w.project, { requests: w.n, failures: 0, notBefore: 0 });
    }
  }

  private meta(name: string): SqlStorageValue | undefined {
    return this.sql.exec<{ value: SqlStorageValue }>("SELECT value FROM meta WHERE name = ?", name).toArray()[0]?.value;
  }

  private setMeta(name: string, value: SqlStorageValue): void {
    this.sql.exec(
      "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
      name,
      value,
    );
  }

  private batches(where: string): Array<Batch & { sealed: number }> {
    type Row = { id: number; pipeline: Pipeline; began: number; seq: number; sealed: number };
    return this.sql
      .exec<Row>(`SELECT id, pipeline, began, seq, sealed FROM batches WHERE ${where} ORDER BY id`)
      .toArray();
  }

  /** append keeps all that a request brings, or nothing. */
  async append(a: Append): Promise<Appended> {
    if (this.sql.databaseSize > this.settings.maxBuffer) {
      this.log("shard is full", { bytes: this.sql.databaseSize });
      return { kept: false };
    }
    const batch = await this.gather(a);
    const object = a.object && batch !== undefined ? await this.storeNow(batch) : undefined;
    return { kept: true, ...(object === undefined ? {} : { object }) };
  }

  /**
   * gather writes what comes within a few milliseconds at once: Cloudflare bills the rows. The first after a pause does
   * not wait. It returns the batch of the events.
   */
  private gather(a: Append): Promise<number | undefined> {
    return new Promise((resolve) => {
      this.gathered.push({ a, resolve });
      this.gatheredBytes += (a.events?.data.length ?? 0) + (a.errors?.data.length ?? 0) + (a.forward?.data.length ?? 0);
      const wait = this.committed + this.settings.gather - Date.now();
      if (wait <= 0 || this.gatheredBytes > maxGathered) this.commit();
      else if (this.gathered.length === 1) setTimeout(() => this.commit(), wait);
    });
  }

  private commit(): void {
    const all = this.gathered.splice(0);
    const first = all[0]?.a;
    if (first === undefined) return;
    this.gatheredBytes = 0;
    this.committed = Date.now();
    let batch: number | undefined;
    this.change(() => {
      if (this.shard === "") {
        this.shard = first.shard;
        this.setMeta("shard", first.shard);
      }
      batch = this.add("events", all, (a) => a.events);
      this.add("errors", all, (a) => a.errors);
      for (const { a } of all) if (a.forward !== undefined) this.addRequest(a.forward);
      if (batch !== undefined && all.some(({ a }) => a.object)) this.seal(batch);
    });
    this.schedule();
    for (const { a, resolve } of all) resolve(a.events === undefined ? undefined : batch);
  }

  /** waitingRequests is how many requests wait for the receiver. */
  waitingRequests(): number {
    let n = 0;
    for (const w of this.waiting.values()) n += w.requests;
    return n;
  }

  /** change changes the storage as a whole, or not at all. Then what is in memory would be wrong: it is read again. */
  private change(f: () => void): void {
    try {
      this.ctx.storage.transactionSync(f);
    } catch (e) {
      this.ctx.abort(String(e));
      throw e;
    }
  }

  /** add adds lines to the open batch of a pipeline, and returns it. undefined: there are none. */
  private add(
    pipeline: Pipeline,
    all: ReadonlyArray<{ readonly a: Pick<Append, "received" | "events" | "errors"> }>,
    linesOf: (a: Pick<Append, "events" | "errors">) => Lines | undefined,
  ): number | undefined {
    const some = all.filter(({ a }) => linesOf(a) !== undefined);
    if (some.length === 0) return undefined;
    const data = concat(some.map(({ a }) => linesOf(a)!.data));
    const rows = some.reduce((n, { a }) => n + linesOf(a)!.rows, 0);
    const times = some.map(({ a }) => a.received);
    const seq = this.nextSeq.get(pipeline) ?? Date.now() * 1000;
    let open = this.open.get(pipeline);
    if (open === undefined) {
      const began = Date.now();
      const { id } = this.sql
        .exec<{ id: number }>(
          "INSERT INTO batches (pipeline, began, seq, sealed) VALUES (?, ?, ?, 0) RETURNING id",
          pipeline,
          began,
          seq,
        )
        .one();
      open = { id, began, bytes: 0, pieces: 0 };
      this.open.set(pipeline, open);
      // A table for each batch: to drop one costs nothing, but each deleted row costs as much as a written one.
      this.sql.exec(`CREATE TABLE ${table(open)} (id INTEGER PRIMARY KEY, rows INTEGER NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL, data BLOB NOT NULL)`);
    }
    for (let at = 0; at < data.length; at += maxPiece) {
      this.sql.exec(
        `INSERT INTO ${table(open)} VALUES (?, ?, ?, ?, ?)`,
        open.pieces++,
        at === 0 ? rows : 0,
        Math.min(...times),
        Math.max(...times),
        data.subarray(at, at + maxPiece),
      );
    }
    open.bytes += data.length;
    this.nextSeq.set(pipeline, seq + rows);
    if (open.bytes >= this.settings.rollBytes) this.seal(open.id);
    return open.id;
  }

  /** seal closes a batch: nothing is added to it any more. */
  private seal(id: number): void {
    this.sql.exec("UPDATE batches SET sealed = 1 WHERE id = ?", id);
    for (const [pipeline, open] of this.open) if (open.id === id) this.open.delete(pipeline);
  }

  /** schedule sets the alarm to the time at which there is something to do. */
  private schedule(): void {
    const now = Date.now();
    let next = Infinity;
    for (const o of this.open.values()) next = Math.min(next, o.began + this.settings.rollAge);
    if (this.batches("sealed = 1").length > 0) next = Math.min(next, Math.max(now, this.storeNotBefore));
    for (const w of this.waiting.values()) if (w.requests > 0) next = Math.min(next, Math.max(now, w.notBefore));
    if (next >= this.alarmAt) return;
    this.alarmAt = next;
    void this.ctx.storage.setAlarm(next);
  }

  override async alarm(): Promise<void> {
    this.alarmAt = Infinity;
    const now = Date.now();
    for (const o of [...this.open.values()]) if (now >= o.began + this.settings.rollAge) this.seal(o.id);
    try {
      await Promise.all([this.store(), this.drain()]);
    } finally {
      this.schedule();
    }
  }

  /** storeNow waits until a sealed batch is in the bucket. undefined: it is not yet. */
  private async storeNow(id: number): Promise<string | undefined> {
    this.stored.set(id, "");
    try {
      await this.store();
      if (this.stored.get(id) === "") await this.store(); // it was sealed behind what the first call stored
      return this.stored.get(id) || undefined;
    } finally {
      this.stored.delete(id);
    }
  }

  /** store brings all sealed batches to the bucket, one after the other. */
  private store(): Promise<void> {
    this.storing ??= this.storeSealed().finally(() => {
      this.storing = undefined;
    });
    return this.storing;
  }

  private async storeSealed(): Promise<void> {
    if (Date.now() < this.storeNotBefore) return;
    for (const b of this.batches("sealed = 1")) {
      try {
        await this.storeBatch(b);
        this.storeFailures = 0;
      } catch (e) {
        const wait = backoff(this.storeFailures++);
        this.storeNotBefore = Date.now() + wait;
        this.log("object not stored", { batch: b.id, pipeline: b.pipeline, error: String(e), retry_ms: wait });
        return;
      }
    }
  }

  private async storeBatch(b: Batch): Promise<void> {
    const { rows, first, last } = this.sql
      .exec<{ rows: number; first: number; last: number }>(
        `SELECT sum(rows) rows, min(first) first, max(last) last FROM ${table(b)}`,
      )
      .one();
    const body = this.encode(b);
    const sha256 = createHash("sha256").update(body).digest("hex");
    const key = objectKey(b.pipeline, b.began, this.shard, b.seq);
    const meta = { rows, firstSeq: b.seq, firstReceived: first, lastReceived: last, sha256 };
    if (!(await putOnce(this.env.BUCKET, key, body, meta))) await this.checkTaken(b, key, metadataOf(meta));
    this.change(() => {
      this.setMeta("seq." + b.pipeline, Math.max(this.nextSeq.get(b.pipeline) ?? 0, b.seq + rows));
      this.sql.exec(`DROP TABLE ${table(b)}`);
      this.sql.exec("DELETE FROM batches WHERE id = ?", b.id);
    });
    if (this.stored.has(b.id)) this.stored.set(b.id, key);
    console.log(JSON.stringify({ message: "object stored", shard: this.shard, key, rows, bytes: body.length }));
  }

  /**
   * checkTaken compares the object that has the key with the one that was to be put. It is ours if an earlier PUT came
   * through. Another one is never overwritten: the batch gets another key.
   */
  private async checkTaken(b: Batch, key: string, want: Record<string, string>): Promise<void> {
    const found = (await this.env.BUCKET.head(key))?.customMetadata ?? {};
    // Another release of zstd may write other bytes for the same rows, so they are told by their number and place.
    if (
      ["penstock-rows", "penstock-first-seq", "penstock-first-received", "penstock-last-received"].every(
        (name) => found[name] === want[name],
      )
    )
      return;
    this.sql.exec("UPDATE batches SET began = max(began + 1, ?) WHERE id = ?", Date.now(), b.id);
    throw new Error(`another object has the key ${key}; the batch gets another one`);
  }

  /** encode writes the object of a batch piece by piece: only the compressed bytes are in memory at once. */
  private encode(b: Batch): Uint8Array {
    const frames: Uint8Array[] = [];
    const lines = new LineWriter(b.seq, this.shard);
    for (const p of this.sql.exec<{ data: ArrayBuffer }>(`SELECT data FROM ${table(b)} ORDER BY id`)) {
      lines.write(new Uint8Array(p.data));
      for (const part of lines.take(frameBytes)) compress(part, frames);
    }
    for (const part of lines.take(1)) compress(part, frames);
    return concat(frames);
  }

  /** addRequest keeps a request for the receiver. */
  private addRequest(f: Forwarded): void {
    const { data, project, events, ...head } = f;
    const { id } = this.sql
      .exec<{ id: number }>(
        "INSERT INTO requests (project, head, events, bytes) VALUES (?, ?, ?, ?) RETURNING id",
        project,
        JSON.stringify(head),
        events,
        data.length,
      )
      .one();
    for (let at = 0, n = 0; at < data.length; at += maxPiece) {
      this.sql.exec("INSERT INTO bodies VALUES (?, ?, ?)", id, n++, data.subarray(at, at + maxPiece));
    }
    const waiting = this.waiting.get(project) ?? { requests: 0, failures: 0, notBefore: 0 };
    waiting.requests++;
    this.waiting.set(project, waiting);
  }

  /** drain sends waiting requests to the receiver until none is left, or until it cannot take them. */
  private drain(): Promise<void> {
    this.draining ??= this.drainAll().finally(() => {
      this.draining = undefined;
    });
    return this.draining;
  }

  private async drainAll(): Promise<void> {
    for (;;) {
      const now = Date.now();
      const due = [...this.waiting].filter(([, w]) => w.requests > 0 && w.notBefore <= now);
      if (due.length === 0) return;
      for (const [project] of due) await this.drainWindow(project);
    }
  }

  /**
   * drainWindow sends the oldest requests of a project. Those of one client are sent in order of arrival, in one
   * request if they fit. Different clients are served at once. The next window begins when all of this one is settled.
   */
  private async drainWindow(project: string): Promise<void> {
    type Row = { id: number; head: string; events: number; bytes: number };
    const rows = this.sql
      .exec<Row>("SELECT id, head, events, bytes FROM requests WHERE project = ? ORDER BY id LIMIT ?", project, window)
      .toArray();
    const clients = Map.groupBy(rows, (r) => r.head);
    const queues = [...clients.values()];
    let failed: Attempt | undefined;
    const worker = async (): Promise<void> => {
      for (let queue = queues.shift(); queue !== undefined; queue = queues.shift()) {
        while (queue.length > 0 && failed === undefined) {
          const merged = [queue.shift()!];
          for (let bytes = merged[0]!.bytes, events = merged[0]!.events; queue.length > 0;) {
            bytes += queue[0]!.bytes;
            events += queue[0]!.events;
            if (bytes > mergedBytes || events > mergedEvents) break;
            merged.push(queue.shift()!);
          }
          const attempt = await this.send(project, merged);
          if (attempt.again) failed = attempt;
        }
      }
    };
    await Promise.all(Array.from({ length: sendsAtOnce }, worker));
    const w = this.waiting.get(project)!;
    if (failed === undefined) {
      w.failures = 0;
      return;
    }
    const wait = Math.max(backoff(w.failures++), failed.retryAfter ?? 0);
    w.notBefore = Date.now() + wait;
    this.log("requests not forwarded", { project, waiting: w.requests, error: failed.why, retry_ms: wait });
  }

  /** send sends requests of one client as one, and forgets them once the receiver has them. */
  private async send(
    project: string,
    requests: ReadonlyArray<{ id: number; head: string; events: number }>,
  ): Promise<Attempt> {
    const bodies: Uint8Array[] = [];
    for (const r of requests) {
      for (const p of this.sql.exec<{ data: ArrayBuffer }>(
        "SELECT data FROM bodies WHERE request = ? ORDER BY id",
        r.id,
      )) {
        bodies.push(new Uint8Array(p.data));
      }
    }
    const head = { ...(JSON.parse(requests[0]!.head) as Pick<Forwarded, "client">), project };
    const data = concat(bodies);
    const events = requests.reduce((n, r) => n + r.events, 0);
    const attempt = await forward(this.env, this.settings, { ...head, data, events });
    if (attempt.again) return attempt;
    if (attempt.refused !== undefined && requests.length > 1) {
      // one of them may be why
      for (const r of requests) {
        const single = await this.send(project, [r]);
        if (single.again) return single;
      }
      return attempt;
    }
    const time = Date.now();
    const refused = attempt.refused && (await this.refusedLines(head, data, time, attempt.refused));
    this.change(() => {
      if (refused !== undefined) this.add("errors", [{ a: { received: time, errors: refused } }], (a) => a.errors);
      for (const r of requests) {
        this.sql.exec("DELETE FROM bodies WHERE request = ?", r.id);
        this.sql.exec("DELETE FROM requests WHERE id = ?", r.id);
      }
    });
    this.waiting.get(project)!.requests -= requests.length;
    return attempt;
  }

  /** refusedLines is a failure record of a request that the receiver rejects for good: its client has a 202. */
  private async refusedLines(
    head: Pick<Forwarded, "client" | "project">,
    data: Uint8Array,
    time: number,
    refused: { code: string; message: string },
  ): Promise<Lines> {
    const requestId = newRequestId();
    const origin: Origin = {
      time,
      project: head.project,
      requestId,
      method: "POST",
      path: "/v1/events",
      contentType: "application/x-ndjson",
      clientIP: head.client.ip,
      userAgent: head.client.userAgent,
      headers: [],
    };
    const failure = { ...refused, raw: data, index: -1 };
    const blob = rawBlob(failure, this.settings.errorBlobThreshold);
    const [reference] = await storeBlobs(
      this.env.BUCKET,
      "errors",
      blob === undefined ? [] : [blob],
      time,
      this.shard,
      requestId,
    );
    const w = new Writer(1024);
    appendFailure(w, failure, origin, reference);
    return { data: w.copy(), rows: 1 };
  }

  private log(message: string, fields: Record<string, unknown>): void {
    console.error(JSON.stringify({ message, shard: this.shard, ...fields }));
  }
}

/** table names the table with the pieces of a batch. */
const table = (b: { readonly id: number }): string => `pieces_${b.id}`;

/** backoff is how long to wait after a number of failures in a row, in ms. */
function backoff(failures: number): number {
  const most = Math.min(maxBackoff, minBackoff * 2 ** Math.min(failures, 10));
  return Math.round(most * (0.75 + Math.random() / 4));
}

/** LineWriter puts the sequence number and the receiver in front of each line. A line may go over several pieces. */
class LineWriter {
  private atStart = true;
  private w = new Writer(1 << 16);

  constructor(
    private seq: number,
    private readonly shard: string,
  ) {}

  write(piece: Uint8Array): void {
    for (let from = 0; from < piece.length;) {
      if (this.atStart) this.w.text(`{"seq":${this.seq++},"receiver":"${this.shard}",`);
      const end = piece.indexOf(0x0a, from);
      this.atStart = end >= 0;
      const to = end < 0 ? piece.length : end + 1;
      this.w.bytes(piece.subarray(from, to));
      from = to;
    }
  }

  /** take returns what was written, in parts of frameBytes. What is shorter than least stays. */
  take(least: number): Uint8Array[] {
    if (this.w.length < least) return [];
    const all = this.w.view();
    const parts: Uint8Array[] = [];
    let at = 0;
    while (all.length - at >= least) {
      parts.push(all.subarray(at, at + frameBytes));
      at += parts[parts.length - 1]!.length;
    }
    this.w = new Writer(1 << 16).bytes(all.subarray(at));
    return parts;
  }
}

/**
 * compress adds text as frames of zstd. workerd's zstd throws if a frame takes more than 40 KB, so what does not
 * compress well becomes smaller frames. The rows are deleted once the object is stored, so each frame is read back.
 */
function compress(text: Uint8Array, frames: Uint8Array[]): void {
  let frame: Uint8Array;
  try {
    frame = zlib.zstdCompressSync(text);
  } catch (e) {
    if (text.length <= smallFrame) throw e;
    const half = text.length >> 1;
    compress(text.subarray(0, half), frames);
    compress(text.subarray(half), frames);
    return;
  }
  if (zlib.zstdDecompressSync(frame).compare(text) !== 0) throw new Error("a frame of zstd does not restore its text");
  frames.push(frame);
}
