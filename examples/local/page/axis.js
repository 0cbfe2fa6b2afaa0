import { DAY, HOUR, MINUTE, SECOND } from './time.js';

/** The shortest and the longest time that is shown at once. */
const LEAST = 10 * SECOND;
const MOST = 1000 * 365 * DAY;
/** The part of the width that stays free on either side, so that nothing lies on the edge. */
const MARGIN = 0.02;

/** The time that is shown: all there is, the last part of it, or where somebody moved it to. */
export class Range {
  constructor() {
    this.from = 0;
    this.to = HOUR;
    /** `all`, a number of milliseconds up to now, or `own`. */
    this.mode = 'all';
  }

  /** Follows the data, unless somebody moved it. */
  follow(first, last) {
    if (this.mode === 'own' || !Number.isFinite(first) || !Number.isFinite(last)) return;
    const from = this.mode === 'all' ? first : last - this.mode;
    const length = Math.max(last - from, MINUTE);
    this.set(from - length * MARGIN, from + length * (1 + MARGIN));
  }

  set(from, to) {
    const length = Math.min(Math.max(to - from, LEAST), MOST);
    const middle = (from + to) / 2;
    this.from = middle - length / 2;
    this.to = middle + length / 2;
  }

  /** Zooms around a place between 0, the left edge, and 1. */
  zoom(factor, place = 0.5) {
    const length = Math.min(Math.max((this.to - this.from) * factor, LEAST), MOST);
    const fixed = this.from + (this.to - this.from) * place;
    this.mode = 'own';
    this.set(fixed - length * place, fixed + length * (1 - place));
  }

  /** Moves by a part of what is shown. */
  move(part) {
    const by = (this.to - this.from) * part;
    this.mode = 'own';
    this.set(this.from + by, this.to + by);
  }

  /** Moves as little as it has to so that a time is shown. */
  reveal(time) {
    const length = this.to - this.from;
    // Less than the margin of `follow`, so that what it shows need not move.
    const inset = (length * MARGIN) / 4;
    const [from, to] = [this.from + inset, this.to - inset];
    if (time < from) this.move((time - from) / length);
    if (time > to) this.move((time - to) / length);
  }

  x(time, left, width) {
    return left + ((time - this.from) / (this.to - this.from)) * (width - left);
  }

  time(x, left, width) {
    return this.from + ((x - left) / (width - left)) * (this.to - this.from);
  }
}
