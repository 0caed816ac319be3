// Sending events to a receiver.

import type { Client } from "./failures";
import type { Durability } from "./keys";
import type { Env, Settings } from "./settings";

/** Forwarded is a request for the receiver. Its events have ids, so it may be sent again. */
export interface Forwarded {
  readonly project: string;
  readonly client: Client;
  readonly data: Uint8Array; // NDJSON
  readonly events: number;
  readonly durability?: Durability; // undefined: the receiver decides
}

/** Reported is an event that the receiver rejected. The receiver stored its failure record. */
interface Reported {
  readonly index: number;
  readonly code: string;
  readonly message: string;
}

/** Answer is the receiver's answer about the events of a request. */
export interface Answer {
  readonly status: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly sampled?: number;
  readonly object?: string;
  readonly errors?: readonly Reported[];
}

/** Attempt is the result of sending a request. */
export interface Attempt {
  readonly again: boolean; // the receiver does not have the events: they are to be sent again
  readonly why?: string;
  readonly retryAfter?: number; // ms
  readonly limited?: { readonly headers: Headers; readonly body: Uint8Array }; // a 429, as its client is to see it
  readonly refused?: { readonly code: string; readonly message: string }; // sending again does not help
  readonly answer?: Answer;
}

/** The headers that tell the receiver of the client: receiver.client_ip_header and receiver.country_header. */
const ipHeader = "X-Client-IP";
const countryHeader = "X-Client-Country";

/** forward sends a request. */
export async function forward(env: Env, settings: Settings, f: Forwarded): Promise<Attempt> {
  const key = forwardKey(env, f.project);
  if (key === undefined) {
    return { again: true, why: `the secret FORWARD_KEYS has no key of the project ${JSON.stringify(f.project)}` };
  }
  const url = new URL("/v1/events", settings.receiverURL);
  if (f.durability !== undefined) url.searchParams.set("durability", f.durability);
  const headers = new Headers({ Authorization: "Bearer " + key, "Content-Type": "application/x-ndjson" });
  if (f.client.ip !== "") headers.set(ipHeader, f.client.ip);
  if (f.client.userAgent !== "") headers.set("User-Agent", f.client.userAgent);
  if (f.client.country !== "") headers.set(countryHeader, f.client.country);
  let response: Response;
  let body: Uint8Array;
  try {
    const signal = AbortSignal.timeout(settings.forwardTimeout);
    response = await fetch(url, { method: "POST", headers, body: f.data, signal });
    body = new Uint8Array(await response.arrayBuffer());
  } catch (e) {
    return { again: true, why: `POST ${url.origin}${url.pathname}: ${(e as Error).message}` };
  }
  return attemptOf(response, body);
}

function attemptOf(response: Response, body: Uint8Array): Attempt {
  const { status } = response;
  const seconds = Number(response.headers.get("Retry-After") ?? "0");
  const retryAfter = Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 300) * 1000 : 0;
  type Said = Partial<Answer> & { error?: { code?: string; message?: string } };
  let said: Said | undefined;
  try {
    said = JSON.parse(new TextDecoder().decode(body)) as Said;
  } catch {
    said = undefined;
  }
  const why = `the receiver answers ${status}: ${said?.error?.message ?? "no answer of a receiver"}`;
  if (said === undefined) return { again: true, why, retryAfter };
  const judged = said.error === undefined && said.accepted !== undefined && said.rejected !== undefined;
  if (judged && (status === 200 || status === 202 || status === 400)) {
    return { again: false, answer: { ...said, accepted: said.accepted!, rejected: said.rejected!, status } };
  }
  if (status === 429) return { again: true, why, retryAfter, limited: { headers: response.headers, body } };
  if ([400, 413, 415].includes(status) && said.error?.code !== undefined) {
    return { again: false, refused: { code: said.error.code, message: said.error.message ?? "" } };
  }
  return { again: true, why, retryAfter };
}

let secret: { readonly text: string; readonly keys: Readonly<Record<string, string>> } | undefined;

function forwardKey(env: Env, project: string): string | undefined {
  const text = env.FORWARD_KEYS ?? "";
  if (secret?.text !== text) {
    try {
      secret = { text, keys: text === "" ? {} : (JSON.parse(text) as Record<string, string>) };
    } catch (e) {
      throw new Error(`the secret FORWARD_KEYS is not JSON: ${(e as Error).message}; want {"project": "key"}`);
    }
  }
  return Object.hasOwn(secret.keys, project) ? secret.keys[project] : undefined;
}
