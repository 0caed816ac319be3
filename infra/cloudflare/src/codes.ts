// The error codes that the edge uses. Names, statuses and meanings are those of the receiver: docs/reference/errors.md.

interface Row {
  readonly status: number;
  readonly retry?: true; // the same request can succeed later
  readonly kept?: true; // a failure record with the raw payload is stored
}

const wrong = (status: number): Row => ({ status, kept: true });
const later = (status: number): Row => ({ status, retry: true });

export const codes = {
  invalid_json: wrong(400),
  not_an_object: wrong(400),
  invalid_utf8: wrong(400),
  nul_character: wrong(400),
  number_out_of_range: wrong(400),
  duplicate_key: wrong(400),
  too_deep: wrong(400),
  too_many_keys: wrong(400),
  missing_name: wrong(400),
  wrong_type: wrong(400),
  field_too_long: wrong(400),
  invalid_timestamp: wrong(400),
  event_too_large: wrong(400),
  empty_body: wrong(400),
  incomplete_body: wrong(400),
  invalid_encoding: wrong(400),
  unknown_durability: wrong(400),
  missing_key: wrong(401),
  unknown_key: wrong(401),
  expired_key: wrong(401),
  write_not_allowed: wrong(403),
  durability_too_low: wrong(403),
  not_found: { status: 404 },
  method_not_allowed: { status: 405 },
  body_too_large: wrong(413),
  decoded_too_large: wrong(413),
  too_many_events: wrong(413),
  too_much: wrong(413),
  unsupported_media_type: wrong(415),
  unsupported_charset: wrong(415),
  unsupported_encoding: wrong(415),
  rate_limited: later(429),
  busy: later(503),
  unavailable: later(503),
  not_stored_yet: later(503),
} as const satisfies Record<string, Row>;

export type Code = keyof typeof codes;

export const rowOf = (code: Code): Row => codes[code];

/** Rejection rejects an event or a whole request. */
export class Rejection extends Error {
  constructor(
    readonly code: Code,
    message: string,
  ) {
    super(message);
  }
}

/** reject makes a Rejection. */
export const reject = (code: Code, message: string): Rejection => new Rejection(code, message);
