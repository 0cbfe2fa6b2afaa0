import { counted, make, setAttribute, setText } from './dom.js';
import { drawRows, prepare, ROW } from './draw.js';
import { reasonOf } from './reasons.js';
import { stamp } from './time.js';

/** How near to an event the pointer has to be, in pixels. */
const NEAR = 7;
/** Rows that PageDown moves by. */
const PAGE = 10;

/**
 * The rows: one a visitor. Only those in view are in the document and on the canvas, so that thousands cost no more than a few.
 *
 * One element among all rows is in the order of the Tab key: the visitor's name, or the cursor, a button on an event. The arrow keys
 * move it. It stays in the document while it is scrolled out of view, so that the focus is not lost.
 */
export class Rows {
  /** `host` has the range, the filter and the selection, and is told by `select` and `point`. */
  constructor({ scroller, spacer, view, canvas, list }, host) {
    Object.assign(this, { scroller, spacer, view, canvas, list, host });
    this.visitors = [];
    this.index = new Map();
    this.elements = new Map();
    /** Where the keyboard is: a visitor, and a stop of its row or null for its name. */
    this.at = { visitor: null, stop: null };
    scroller.addEventListener('scroll', () => host.redraw(), { passive: true });
    scroller.addEventListener('keydown', (event) => this.#key(event));
    view.addEventListener('pointermove', (event) => host.point(this.#hit(event)));
    view.addEventListener('pointerleave', () => host.point({}));
    view.addEventListener('click', (event) => this.#click(event));
  }

  /** Sets the visitors, one a row. */
  set(visitors) {
    this.visitors = visitors;
    this.index = new Map(visitors.map((visitor, row) => [visitor, row]));
    this.spacer.style.height = `${visitors.length * ROW}px`;
    this.scroller.setAttribute('aria-rowcount', visitors.length);
    if (!this.index.has(this.at.visitor)) this.at = { visitor: null, stop: null };
  }

  /** Draws the rows that are in view. */
  draw(shared) {
    const { clientWidth: width, clientHeight: height, scrollTop } = this.scroller;
    this.view.style.height = `${height}px`;
    const first = Math.floor(scrollTop / ROW);
    const last = Math.min(this.visitors.length, Math.ceil((scrollTop + height) / ROW));
    const top = (row) => Math.round(row * ROW - scrollTop);
    const visible = [];
    for (let row = first; row < last; row += 1) visible.push({ visitor: this.visitors[row], row, top: top(row) });
    this.shown = { ...shared, visible, width, height };
    const drawn = drawRows(prepare(this.canvas, width, height), this.shown);
    // What a test, or a person who wonders, can read.
    Object.assign(this.canvas.dataset, { rows: visible.length, drawn });
    this.#place(visible, top);
  }

  /** Moves the keyboard's place to an event or a session, and shows it. */
  go(visitor, stop, hasFocus = true) {
    if (!this.index.has(visitor)) return;
    this.at = { visitor, stop };
    const y = this.index.get(visitor) * ROW;
    const { scrollTop, clientHeight } = this.scroller;
    if (y < scrollTop) this.scroller.scrollTop = y;
    if (y + ROW > scrollTop + clientHeight) this.scroller.scrollTop = y + ROW - clientHeight;
    if (stop) this.host.range.reveal(stop.at);
    this.host.select({ visitor, session: stop?.session, event: stop?.event });
    this.cursor?.remove();
    this.cursor = null;
    this.host.drawNow();
    if (hasFocus) (this.cursor ?? this.elements.get(visitor)?.name)?.focus({ preventScroll: true });
  }

  /** Puts the elements of the rows in view where they belong, and takes the others away. */
  #place(visible, top) {
    const kept = new Map(visible.map(({ visitor, row }) => [visitor, row]));
    const active = this.at.visitor ?? visible[0]?.visitor;
    if (active) kept.set(active, this.index.get(active));
    for (const [visitor, { row }] of this.elements) {
      if (kept.has(visitor)) continue;
      row.remove();
      this.elements.delete(visitor);
    }
    for (const [visitor, row] of kept) {
      const element = this.elements.get(visitor) ?? this.#make(visitor);
      element.row.style.transform = `translateY(${top(row)}px)`;
      setAttribute(element.row, 'aria-rowindex', row + 1);
      element.name.tabIndex = visitor === active && !this.at.stop ? 0 : -1;
      setText(element.counts, `${visitor.sessions.length} / ${visitor.events.length}`);
      setAttribute(element.name, 'aria-label', nameOf(visitor));
    }
    this.#order(kept, active);
    this.#placeCursor();
  }

  /** Brings the elements into the order of the rows, in which screen readers read them. One that is moved loses the focus, so that
   * the others move around the one that may have it. */
  #order(kept, active) {
    const byRow = [...kept].sort(([, one], [, other]) => one - other).map(([visitor]) => this.elements.get(visitor).row);
    if (byRow.every((row, at) => this.list.children[at] === row)) return;
    const anchor = this.elements.get(active).row;
    const at = byRow.indexOf(anchor);
    anchor.before(...byRow.slice(0, at));
    anchor.after(...byRow.slice(at + 1));
  }

  #make(visitor) {
    const name = make('button', { type: 'button', title: visitor.id }, visitor.id);
    const counts = make('span', { class: 'counts', 'aria-hidden': 'true' });
    const cell = make('div', { role: 'gridcell', class: 'cell' });
    const project = make('span', { class: 'project', 'aria-hidden': 'true' }, visitor.project);
    const header = make('div', { role: 'rowheader', class: 'name' }, name, project, counts);
    const row = make('div', { role: 'row', class: 'row' }, header, cell);
    name.addEventListener('click', (event) => {
      event.stopPropagation();
      this.go(visitor, null);
    });
    name.addEventListener('focus', () => {
      if (this.at.visitor !== visitor || this.at.stop) this.go(visitor, null, false);
    });
    this.list.append(row);
    const element = { row, name, counts, cell };
    this.elements.set(visitor, element);
    return element;
  }

  /** Keeps the cursor on its event: a new button each time that it moves, so that screen readers read it. */
  #placeCursor() {
    const { visitor, stop } = this.at;
    if (!stop) return this.cursor?.remove();
    this.cursor ??= make('button', { type: 'button', class: 'cursor', tabindex: '0' });
    const { cell } = this.elements.get(visitor);
    if (this.cursor.parentElement !== cell) cell.append(this.cursor);
    setAttribute(this.cursor, 'aria-label', labelOf(refreshed(visitor, stop)));
    const x = this.host.range.x(stop.at, this.shown.left, this.shown.width);
    this.cursor.style.transform = `translateX(${Math.round(x - this.shown.left)}px)`;
    return undefined;
  }

  /** Returns what is at the pointer. */
  #hit(event) {
    const { left: boxLeft, top } = this.view.getBoundingClientRect();
    const [x, y] = [event.clientX - boxLeft, event.clientY - top];
    const visitor = this.visitors[Math.floor((y + this.scroller.scrollTop) / ROW)];
    const { left, width } = this.shown;
    if (!visitor || x < left) return visitor ? { visitor } : {};
    const { range } = this.host;
    const distance = (time) => Math.abs(range.x(time, left, width) - x);
    const near = stopsOf(visitor).filter(({ at }) => distance(at) <= NEAR);
    near.sort((one, other) => distance(one.at) - distance(other.at));
    if (near.length > 0) return { visitor, stop: near[0], session: near[0].session, event: near[0].event };
    const time = range.time(x, left, width);
    const session = visitor.sessions.findLast(({ start, stop }) => start <= time && time <= stop);
    return session ? { visitor, session, stop: stopsOf(visitor).find((stop) => stop.session === session) } : { visitor };
  }

  #click(event) {
    // The pointer moved the time axis and did not click.
    if (this.host.wasDragged()) return;
    const { visitor, stop } = this.#hit(event);
    if (visitor) this.go(visitor, stop ?? null);
  }

  #key(event) {
    const visitor = this.at.visitor ?? this.visitors[Math.floor(this.scroller.scrollTop / ROW)];
    const move = visitor && this.#moves(event, visitor)[event.key];
    if (!move || event.altKey || event.metaKey) return;
    event.preventDefault();
    move();
  }

  /** Returns what each key does. */
  #moves(event, visitor) {
    const row = this.index.get(visitor);
    const { stop } = this.at;
    const stops = stopsOf(visitor);
    const place = stop ? stops.findIndex((one) => isSame(one, stop)) : -1;
    const by = event.shiftKey ? (step) => nextSession(stops, place, step) : (step) => place + step;
    const along = (next) => this.go(visitor, next < 0 ? null : stops[Math.min(next, stops.length - 1)] ?? null);
    const across = (next) => {
      const other = this.visitors[Math.min(Math.max(next, 0), this.visitors.length - 1)];
      this.go(other, stop ? nearest(stopsOf(other), stop.at) : null);
    };
    const { range } = this.host;
    const zoom = (factor) => () => this.host.zoom(factor, stop ? range.x(stop.at, 0, 1) : 0.5);
    return {
      ArrowDown: () => across(row + 1),
      ArrowUp: () => across(row - 1),
      PageDown: () => across(row + PAGE),
      PageUp: () => across(row - PAGE),
      ArrowRight: () => along(by(1)),
      ArrowLeft: () => along(by(-1)),
      Home: () => (event.ctrlKey ? across(0) : along(0)),
      End: () => (event.ctrlKey ? across(this.visitors.length - 1) : along(stops.length - 1)),
      Escape: () => along(-1),
      '+': zoom(1 / 1.5),
      '-': zoom(1.5),
    };
  }
}

/** Returns whether two places are one. Sessions are computed anew with each change, and an event may have moved to another one. */
const isSame = (one, other) => one.event === other.event && (one.event || one.session.id === other.session?.id);

/** Returns a place, a selection or what is pointed at, with the session that it has now. */
export function refreshed(visitor, { event, session, ...rest }) {
  return { ...rest, event, session: event ? event.inSession : session && visitor.session(session.id) };
}

/** Returns where the keyboard can be in a row: on each event, and on sessions of which only the end is known. */
export function stopsOf(visitor) {
  if (visitor.stops?.of === visitor.events) return visitor.stops.list;
  const list = visitor.events.map((event) => ({ at: event.at, session: event.inSession, event }));
  const alone = visitor.sessions.filter(({ events }) => events.length === 0);
  for (const session of alone) list.push({ at: session.start, session, event: null });
  list.sort((one, other) => one.at - other.at);
  // `settle` makes a new list of events.
  visitor.stops = { of: visitor.events, list };
  return list;
}

function nextSession(stops, place, step) {
  const current = stops[place]?.session;
  let next = place + step;
  while (next >= 0 && next < stops.length && stops[next].session === current) next += step;
  if (step < 0) while (next > 0 && stops[next - 1].session === stops[next].session) next -= 1;
  return Math.min(next, stops.length - 1);
}

const nearest = (stops, time) => stops.reduce(
  (best, stop) => (best && Math.abs(best.at - time) <= Math.abs(stop.at - time) ? best : stop), null,
);

function nameOf(visitor) {
  const project = visitor.project ? `, project ${visitor.project}` : '';
  const late = visitor.late > 0 ? `, ${visitor.late} late` : '';
  return `${visitor.id}${project}: ${counted(visitor.sessions.length, 'session')}, ${counted(visitor.events.length, 'event')}${late}`;
}

function labelOf({ event, session, at }) {
  const what = event ? event.name : 'session';
  if (!session) return `${what}, ${stamp(at)}, in no session`;
  const { sessions } = session.visitor;
  const inside = event ? `event ${session.events.indexOf(event) + 1} of ${session.events.length}, ` : '';
  const late = event?.isLate ? ', late' : '';
  const state = session.isOpen ? 'open' : 'ended';
  const place = `session ${sessions.indexOf(session) + 1} of ${sessions.length}`;
  return `${what}, ${stamp(at)}, ${inside}${place}, began by ${reasonOf(session.reason).label}, ${state}${late}`;
}
