const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Returns the id by which an event is told from others: a UUID is the same in any case, any other id is not. */
const folded = (uuid) => (UUID.test(uuid) ? uuid.toLowerCase() : uuid);

/** Compares events as the service does: by time, then by id. */
const byTime = (one, other) => one.at - other.at || (one.id < other.id ? -1 : one.id > other.id ? 1 : 0);

/**
 * One visitor's events, and the sessions that they make up. It follows the output by the rules that docs/output.md has for every
 * consumer: the copy of an event with the highest version, the end with the highest version, and corrections in their order.
 */
export class Visitor {
  constructor(project, id) {
    this.project = project;
    this.id = id;
    this.byId = new Map();
    this.ends = new Map();
    this.corrections = [];
    /** All events, by time. */
    this.events = [];
    /** All sessions, by start. */
    this.sessions = [];
    this.late = 0;
    this.first = Infinity;
    this.last = -Infinity;
    this.isErased = false;
    /** When something was last received of it. */
    this.received = 0;
  }

  /** Takes an event; returns whether it is a duplicate. */
  addEvent(item) {
    this.received = Math.max(this.received, item.received);
    const id = folded(item.uuid);
    const known = this.byId.get(id);
    if (!known) {
      this.byId.set(id, { ...item, id, duplicates: 0, isLate: Boolean(item.late) });
      return false;
    }
    known.duplicates += 1;
    if ((item.version ?? -1) > (known.version ?? -1)) {
      const { session, version, reason, number, at, late } = item;
      Object.assign(known, { session, version, reason, number, at, late });
    }
    return true;
  }

  /** Takes a session's end; returns whether it is a version that was not known. */
  addEnd(item) {
    this.received = Math.max(this.received, item.received);
    const known = this.ends.get(item.session);
    if (known && known.version >= item.version) return false;
    this.ends.set(item.session, item);
    return true;
  }

  /** Takes a correction; returns whether it was not known. */
  addCorrection(item) {
    this.received = Math.max(this.received, item.received);
    if (this.corrections.some((known) => known.version === item.version && known.from === item.from)) return false;
    // Where it shows: a merged session's start is known before it is merged.
    const place = item.at ?? this.session(item.from)?.start ?? this.session(item.into)?.start ?? item.received;
    this.corrections.push({ ...item, place });
    this.corrections.sort((one, other) => one.version - other.version);
    return true;
  }

  session(id) {
    return this.sessions.find((session) => session.id === id);
  }

  /** Computes the sessions anew. */
  settle() {
    this.events = [...this.byId.values()].sort(byTime);
    const sessions = new Map();
    const at = (id) => {
      if (!sessions.has(id)) sessions.set(id, { id, events: [], visitor: this });
      return sessions.get(id);
    };
    this.late = 0;
    for (const event of this.events) {
      event.current = this.#sessionOf(event);
      event.inSession = event.current ? at(event.current) : null;
      event.inSession?.events.push(event);
      this.late += event.isLate ? 1 : 0;
    }
    for (const [id, end] of this.ends) {
      if (!this.#isMergedSince(id, end.version)) at(id).end = end;
    }
    this.sessions = [...sessions.values()].map(complete).sort((one, other) => one.start - other.start || one.number - other.number);
    const times = this.sessions.flatMap(({ start, stop }) => [start, stop]).concat(this.events.map((event) => event.at));
    this.first = times.reduce((least, time) => Math.min(least, time), Infinity);
    this.last = times.reduce((most, time) => Math.max(most, time), -Infinity);
  }

  /** Returns the session of an event: the one that it was handed out with, then each correction that moves it. */
  #sessionOf(event) {
    let session = event.session;
    for (const correction of this.corrections) {
      if (correction.from === session && correction.version > event.version && moves(correction, event)) {
        session = correction.into;
      }
    }
    return session;
  }

  #isMergedSince(id, version) {
    return this.corrections.some(({ kind, from, version: since }) => kind === 'merged' && from === id && since > version);
  }
}

/** Returns whether a correction of an event's session moves the event. */
function moves(correction, event) {
  if (correction.kind === 'merged') return true;
  return !event.late && byTime(event, { at: correction.at, id: correction.from_event }) >= 0;
}

/** Adds to a session what its events and its end tell. */
function complete(session) {
  const { events, end } = session;
  const own = events.filter((event) => event.session === session.id).reduce(newer, end);
  const times = events.map((event) => event.at);
  session.start = Math.min(events[0]?.at ?? Infinity, end?.started ?? Infinity);
  session.stop = Math.max(times.at(-1) ?? -Infinity, end?.ended ?? -Infinity);
  session.reason = own?.reason;
  session.number = own?.number ?? 0;
  session.version = own?.version;
  session.isOpen = !end;
  session.eventCount = Math.max(end?.events ?? 0, events.length);
  return session;
}

const newer = (one, other) => ((other.version ?? -1) > (one?.version ?? -1) ? other : one);
