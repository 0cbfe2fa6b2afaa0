/** What the rows may be narrowed down to, besides the visitor's name, the project and the reason. */
const MARKED = {
  any: () => true,
  late: (visitor) => visitor.late > 0,
  merged: (visitor) => visitor.corrections.some(({ kind }) => kind === 'merged'),
  split: (visitor) => visitor.corrections.some(({ kind }) => kind === 'split'),
  open: (visitor) => visitor.sessions.some(({ isOpen }) => isOpen),
};

/** How rows may be ordered. Those that are equal stay in the order in which they came. */
const ORDERS = {
  first: (one, other) => one.first - other.first,
  latest: (one, other) => other.received - one.received || other.last - one.last,
  sessions: (one, other) => other.sessions.length - one.sessions.length,
  name: (one, other) => (one.id < other.id ? -1 : one.id > other.id ? 1 : 0),
};

/** Which rows are shown, and in which order. */
export class Filter {
  constructor() {
    this.text = '';
    this.project = null;
    this.marked = 'any';
    this.order = 'first';
    /** The reasons that are switched off. */
    this.hidden = new Set();
  }

  /** Returns whether a session is shown in its color; others are only outlined. */
  shows(session) {
    return !this.hidden.has(session.reason);
  }

  /** Returns the visitors that are shown, in their order. */
  rows(visitors) {
    const text = this.text.trim().toLowerCase();
    const isShown = (visitor) => (!text || visitor.id.toLowerCase().includes(text))
      && (this.project === null || visitor.project === this.project)
      && MARKED[this.marked](visitor)
      && (this.hidden.size === 0 || visitor.sessions.some((session) => this.shows(session)));
    return [...visitors].filter(isShown).sort(ORDERS[this.order]);
  }
}
