export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** The distances that marks of the time axis may have. */
const STEPS = [
  SECOND, 5 * SECOND, 15 * SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY, 365 * DAY,
];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** Returns a time of day: 10:05:00. All times are UTC, as in the events. */
export const clock = (time) => iso(time).slice(11, 19);

/** Returns a date and a time of day: 2026-03-10 10:05:00. */
export const stamp = (time) => `${iso(time).slice(0, 10)} ${clock(time)}`;

/** Returns a date without the year: 10 Mar. */
export function day(time) {
  const date = new Date(time);
  return `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}`;
}

function iso(time) {
  const date = new Date(time);
  // A time beyond what a Date can hold.
  return Number.isNaN(date.getTime()) ? '????-??-?? ??:??:??' : date.toISOString();
}

/** Returns how long something took, in its two largest units: 32 min 5 s. */
export function span(milliseconds) {
  const units = [[DAY, 'd'], [HOUR, 'h'], [MINUTE, 'min'], [SECOND, 's']];
  let rest = Math.max(0, milliseconds);
  if (rest < SECOND) return rest === 0 ? '0 s' : `${Math.round(rest)} ms`;
  const words = [];
  for (const [size, name] of units) {
    const number = Math.floor(rest / size);
    if (number > 0 && words.length < 2) words.push(`${number} ${name}`);
    else if (words.length > 0) break;
    rest -= number * size;
  }
  return words.join(' ');
}

/** Returns the marks of a time axis: round times, at least `distance` pixels apart. A mark at midnight has the date. */
export function marks({ from, to }, width, distance) {
  const least = ((to - from) * distance) / Math.max(width, 1);
  const step = STEPS.find((candidate) => candidate >= least) ?? Math.ceil(least / (365 * DAY)) * 365 * DAY;
  const found = [];
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    const isDay = time % DAY === 0;
    found.push({ time, isDay, label: isDay ? day(time) : clock(time).slice(0, step < MINUTE ? 8 : 5) });
  }
  return found;
}
