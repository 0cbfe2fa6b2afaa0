import { Visitor } from './visitor.js';

/** Events of the last so many seconds make up the rate. */
const RATE_SECONDS = 10;
/** Notable things that are kept for the list of what just happened. */
const MAX_NEWS = 40;

/** All visitors, and the totals. */
export class Model {
  constructor() {
    this.reset();
  }

  /** Forgets everything. */
  reset() {
    this.visitors = new Map();
    this.projects = new Set();
    this.totals = { events: 0, sessions: 0, open: 0, late: 0, merged: 0, split: 0, duplicates: 0, rejected: 0, failed: 0 };
    /** Sessions by the reason of their beginning. */
    this.reasons = new Map();
    this.news = [];
    this.leftOut = 0;
    this.recent = [];
    this.changed = new Set();
  }

  /** Takes an item of the feed. What follows from it is computed by `settle`. */
  apply(item) {
    switch (item.kind) {
      case 'event': return this.#event(item);
      case 'end': return this.#end(item);
      case 'merged':
      case 'split': return this.#correction(item);
      case 'erased': return this.#erased(item);
      case 'rejected': return this.#refused(item, 'rejected');
      case 'failed': return this.#refused(item, 'failed');
      // An item of a newer version of the service.
      default: return undefined;
    }
  }

  /** Computes the sessions of the visitors that changed. */
  settle() {
    for (const visitor of this.changed) this.#settled(visitor);
    this.changed.clear();
  }

  /** Returns the events a second, by the service's clock at its present speed. */
  rate(now, speed) {
    const since = now - RATE_SECONDS * 1000 * speed;
    this.recent = this.recent.filter((received) => received > since);
    return this.recent.length / RATE_SECONDS;
  }

  #event(item) {
    const visitor = this.#visitor(item);
    this.recent.push(item.received);
    if (visitor.addEvent(item)) this.totals.duplicates += 1;
    else {
      this.totals.events += 1;
      if (item.late) this.#tell(visitor, item, 'late', 'a late event', item.uuid);
    }
  }

  #end(item) {
    const visitor = this.#visitor(item);
    const isAgain = visitor.ends.has(item.session);
    if (visitor.addEnd(item)) this.#tell(visitor, item, 'end', isAgain ? 'a session’s end, again' : 'a session ended');
  }

  #correction(item) {
    const visitor = this.#visitor(item);
    // Where a correction shows depends on the sessions before it.
    this.#settled(visitor);
    this.changed.add(visitor);
    if (!visitor.addCorrection(item)) return;
    this.totals[item.kind] += 1;
    this.#tell(visitor, item, item.kind, item.kind === 'merged' ? 'two sessions are one' : 'one session is two');
  }

  #erased(item) {
    const key = keyOf(item);
    const visitor = this.visitors.get(key);
    if (!visitor) return;
    this.#count(visitor, -1);
    this.visitors.delete(key);
    visitor.isErased = true;
    this.changed.delete(visitor);
    this.news = this.news.filter((news) => news.visitor !== visitor);
  }

  #refused(item, kind) {
    this.totals[kind] += 1;
    this.#tell(null, item, kind, `an event was ${kind === 'failed' ? 'not applied' : 'rejected'}: ${item.code}`);
  }

  #visitor(item) {
    const key = keyOf(item);
    if (!this.visitors.has(key)) {
      this.visitors.set(key, new Visitor(item.project ?? '', item.visitor));
      this.projects.add(item.project ?? '');
    }
    const visitor = this.visitors.get(key);
    this.changed.add(visitor);
    return visitor;
  }

  #settled(visitor) {
    this.#count(visitor, -1);
    visitor.settle();
    this.#count(visitor, 1);
  }

  #count(visitor, sign) {
    this.totals.late += sign * visitor.late;
    for (const session of visitor.sessions) {
      this.totals.sessions += sign;
      this.totals.open += session.isOpen ? sign : 0;
      this.reasons.set(session.reason, (this.reasons.get(session.reason) ?? 0) + sign);
    }
  }

  #tell(visitor, item, kind, text, uuid) {
    this.news.unshift({ visitor, kind, text, uuid, session: item.into ?? item.session, received: item.received });
    this.news.length = Math.min(this.news.length, MAX_NEWS);
  }
}

/** Returns what tells visitors apart. A project has no `#` in its name. */
const keyOf = (item) => `${item.project ?? ''}#${item.visitor}`;
