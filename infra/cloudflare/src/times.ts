// The times of events, in all forms that internal/pipeline/time.go accepts: docs/guides/sdks.md lists them.

/** TimeError says why a text is not a time. It is written to follow the member's name and value. */
export class TimeError extends Error {}

const notTime = new TimeError(
  "want a time as 2026-11-22T03:45:12.345Z, or the seconds, milliseconds, microseconds or nanoseconds since 1970",
);
const outOfRange = new TimeError("want a time within the years 1900 to 2299");

const minTime = -2208988800000;
const maxTime = 10413791999999;
const dayMillis = 86_400_000;

function checked(ms: number): number {
  if (ms < minTime || ms > maxTime) throw outOfRange;
  return ms;
}

/** parseTime reads a time that a client sent as text, and returns milliseconds since 1970. null: there is none. */
export function parseTime(text: string): number | null {
  if (text === "") return null;
  if (text.length >= 10 && text[4] === "-" && text[7] === "-") return parseDateTime(text);
  if (/^\d{8}$/.test(text)) {
    const ms = dayOf(Number(text.slice(0, 4)), Number(text.slice(4, 6)), Number(text.slice(6)));
    if (ms !== undefined && ms >= minTime && ms <= maxTime) return ms;
  }
  return parseEpoch(text);
}

function dayOf(year: number, month: number, day: number): number | undefined {
  if (month < 1 || month > 12 || day < 1 || day > daysIn(year, month)) return undefined;
  const d = new Date(0);
  d.setUTCFullYear(year, month - 1, day);
  return d.getTime();
}

const daysIn = (year: number, month: number): number => {
  if (month !== 2) return [4, 6, 9, 11].includes(month) ? 30 : 31;
  return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28;
};

/**
 * parseEpoch reads a number of seconds, milliseconds, microseconds or nanoseconds since 1970. Its size tells the unit.
 * What is finer than a millisecond is rounded. It goes by the digits, because a float64 does not hold nanoseconds.
 */
export function parseEpoch(text: string): number {
  const m = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
  if (m === null) throw notTime;
  const [, sign, whole = "", fraction = "", exponent = "0"] = m;
  const all = whole + fraction;
  const mantissa = all.replace(/^0+/, "");
  if (mantissa === "") return 0;
  const point = whole.length - (all.length - mantissa.length) + Number(exponent);
  let keep: number;
  if (point <= 11) keep = point + 3;
  else if (point <= 14) keep = point;
  else if (point <= 17) keep = point - 3;
  else if (point <= 20) keep = point - 6;
  else throw outOfRange;
  const ms = rounded(mantissa, keep);
  return checked(sign === "-" && ms !== 0 ? -ms : ms);
}

/** rounded is the first digits of a mantissa as a number, rounded half up. */
function rounded(mantissa: string, keep: number): number {
  if (keep < 0) return 0;
  const digits = mantissa.slice(0, keep).padEnd(keep, "0");
  const up = (mantissa[keep] ?? "0") >= "5" ? 1 : 0;
  return (digits === "" ? 0 : Number(digits)) + up;
}

const dateTime = /^(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?([^]*))?$/;

function parseDateTime(text: string): number {
  const m = dateTime.exec(text);
  const day = m === null ? undefined : dayOf(Number(m[1]), Number(m[2]), Number(m[3]));
  if (m === null || day === undefined) throw notTime;
  if (m[4] === undefined) return checked(day);
  const hour = Number(m[4]);
  const minute = Number(m[5]);
  const second = Number(m[6] ?? "0");
  const fraction = m[7] ?? "";
  if (hour > 24 || minute > 59 || second > 60 || (hour === 24 && /[1-9]/.test(fraction))) throw notTime;
  const leap = second === 60;
  const clock = (hour * 60 + minute) * 60_000 + second * 1000 + Number(fraction.slice(0, 3).padEnd(3, "0"));
  if (clock > dayMillis && !(leap && hour < 24)) throw notTime;
  const ms = day + clock - offsetOf(m[8] ?? "");
  // A leap second is always the last one of a day in UTC, so the time after it is within the first of the next day.
  if (leap && ((ms % dayMillis) + dayMillis) % dayMillis >= 1000) throw notTime;
  return checked(ms);
}

/** offsetOf reads what follows the clock, and returns the zone's offset to the east of UTC in milliseconds. */
function offsetOf(zone: string): number {
  if (zone === "" || zone === "Z" || zone === "z") return 0;
  zone = withoutName(zone);
  if (zone[0] === " ") zone = zone.slice(1);
  const offset = /^([+-])(\d\d)(?::?(\d\d))?$/.exec(zone);
  if (offset !== null) {
    const minutes = Number(offset[2]) * 60 + Number(offset[3] ?? "0");
    if (Number(offset[3] ?? "0") > 59 || minutes > 14 * 60) throw notTime;
    return (offset[1] === "-" ? -minutes : minutes) * 60_000;
  }
  if (zone.length === 2 && zone[0] === ":") zone = zone.slice(1);
  if (!/^(z|utc|gmt)$/i.test(zone)) throw notTime;
  return 0;
}

/** withoutName removes the name of a zone that follows Z or an offset. */
function withoutName(zone: string): string {
  const bracket = zone.indexOf("[");
  if (bracket > 0 && zone.endsWith("]")) return zone.slice(0, bracket);
  const name = /^([^]*\d) [A-Z]{3,5}$/.exec(zone);
  return name?.[1] ?? zone;
}

/** timeOf writes a time as it is in objects. */
export const timeOf = (ms: number): string => new Date(ms).toISOString();

/** keyTime writes a time as it is in keys. */
export const keyTime = (ms: number): string => timeOf(ms).replace(/[-:]/g, "");
