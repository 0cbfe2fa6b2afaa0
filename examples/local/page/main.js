import { byId, count, oncePerFrame, setText } from './dom.js';
import { Model } from './model.js';
import { Filter } from './filter.js';
import { Range } from './axis.js';
import { colors, drawAxis, prepare, SHINE } from './draw.js';
import { refreshed, Rows, stopsOf } from './rows.js';
import { Details } from './details.js';
import { Totals } from './totals.js';
import { Controls, TimeTravel } from './controls.js';
import { embeddedData, listen } from './source.js';

/** How long items are applied in a frame, in milliseconds. What is left waits for the next one, so that scrolling stays smooth. */
const APPLY_MS = 6;
/** How often the order of the rows, the totals and the legend are computed anew, in milliseconds. */
const LIST_MS = 250;
/** Lines after which a page that stays open begins anew with those that the service keeps, so that its memory is bounded. */
const MAX_LINES = 200_000;
/** Pixels that the pointer moves before it drags. */
const DRAG = 4;

/** Ties the parts together: what comes in is queued, and everything is drawn once a frame. */
class Page {
  constructor(data) {
    this.data = data;
    this.model = new Model();
    this.filter = new Filter();
    this.range = new Range();
    this.queue = [];
    this.taken = 0;
    this.selection = {};
    this.hover = {};
    this.listedAt = -Infinity;
    this.time = { now: null, speed: 1, at: 0 };
    this.isStill = matchMedia('(prefers-reduced-motion: reduce)');
    this.redraw = oncePerFrame(() => this.#frame());
    this.rows = new Rows({
      scroller: byId('scroller'), spacer: byId('spacer'), view: byId('view'), canvas: byId('canvas'), list: byId('rows'),
    }, this);
    this.details = new Details(byId('details'), { hasReplay: Boolean(data.replay) });
    this.totals = new Totals(this);
    this.controls = new Controls(this);
    if (data.time_travel) this.travel = new TimeTravel();
    this.#pointer();
    new ResizeObserver(() => this.redraw()).observe(byId('scroller'));
  }

  start() {
    if (this.data.live) this.source = listen(this);
    else {
      this.setState('recorded');
      this.take(this.data);
    }
  }

  // What the source tells.

  take({ items, left_out: leftOut }) {
    this.model.leftOut = leftOut;
    this.taken += items.length;
    if (this.data.live && this.taken > MAX_LINES) {
      this.source.close();
      this.reset();
      this.source = listen(this);
      return;
    }
    // One by one: a call has room for a limited number of arguments.
    for (const item of items) this.queue.push(item);
    this.redraw();
  }

  setTime({ now, speed }) {
    this.time = { now, speed, at: performance.now() };
    this.travel?.show(now, speed);
    // The rate falls while nothing comes in.
    this.isListOld = true;
    this.redraw();
  }

  setState(state) {
    byId('state').dataset.state = state;
    setText(byId('state'), state === 'reconnecting' ? 'reconnecting …' : state);
  }

  /** The service began anew. */
  reset() {
    [this.queue, this.taken, this.isCaughtUp] = [[], 0, false];
    this.model.reset();
    [this.selection, this.hover] = [{}, {}];
    this.refilter();
  }

  // What the controls ask for.

  refilter() {
    this.listedAt = -Infinity;
    this.redraw();
  }

  repaint() {
    this.palette = null;
    this.redraw?.();
  }

  setRange(value) {
    this.range.mode = value === 'all' || value === 'own' ? value : Number(value);
    this.refilter();
  }

  zoom(factor, place) {
    this.range.zoom(factor, place);
    this.redraw();
  }

  select(selection) {
    this.selection = selection;
    this.redraw();
  }

  point(hover) {
    this.hover = hover;
    byId('view').classList.toggle('is-over', Boolean(hover.stop));
    this.redraw();
  }

  /** Goes to what a line of the news is about. */
  find(visitor, uuid, session) {
    if (!this.rows.index.has(visitor)) this.controls.clear();
    this.#listRows(performance.now());
    this.drawNow();
    const stops = stopsOf(visitor);
    const stop = stops.find(({ event }) => uuid && event?.uuid === uuid) ?? stops.find((one) => one.session?.id === session);
    this.rows.go(visitor, stop ?? null);
  }

  // Drawing.

  /** Draws now what would be drawn in the next frame. */
  drawNow() {
    this.#draw();
  }

  #frame() {
    this.#apply();
    const now = performance.now();
    this.model.settle();
    if (now - this.listedAt >= LIST_MS && (this.isListOld || this.listedAt < 0)) this.#listRows(now);
    this.#draw();
    const isMoving = (this.shining > 0 || this.time.speed > 1) && !this.isStill.matches;
    if (this.queue.length > 0 || this.isListOld || isMoving) this.redraw();
  }

  #apply() {
    const began = performance.now();
    let done = 0;
    while (done < this.queue.length && performance.now() - began < APPLY_MS) {
      // In portions: looking at the clock takes longer than to apply an item.
      for (const item of this.queue.slice(done, done + 50)) {
        // What is there when the page opens did not just happen.
        if (this.data.live && this.time.at > 0 && this.isCaughtUp) item.born = began;
        this.model.apply(item);
      }
      done += 50;
    }
    this.queue.splice(0, done);
    if (done > 0) this.isListOld = true;
    if (this.queue.length === 0 && done > 0) this.isCaughtUp = true;
  }

  #listRows(now) {
    this.listedAt = now;
    this.isListOld = false;
    this.palette ??= colors();
    const rows = this.filter.rows(this.model.visitors.values());
    this.rows.set(rows);
    const shown = rows.reduce(([first, last], one) => [Math.min(first, one.first), Math.max(last, one.last)], [Infinity, -Infinity]);
    this.extent = shown;
    this.totals.show(this.model, { ...this.#time(), isLive: this.data.live });
    this.controls.show(this.model, this.palette);
    byId('rows').classList.toggle('has-projects', this.model.projects.size > 1);
    setText(byId('shown'), rows.length === this.model.visitors.size ? '' : `${count(rows.length)} shown`);
    byId('empty').hidden = rows.length > 0;
    setText(byId('empty'), this.model.visitors.size > 0 ? 'No visitor is like that.' : this.data.live ? EMPTY : 'There are no events.');
  }

  #draw() {
    this.palette ??= colors();
    this.selection = current(this.selection);
    this.hover = current(this.hover);
    const { now } = this.#time();
    this.#follow(now);
    this.controls.showRange(this.range);
    this.shining = 0;
    const { range, palette, filter, selection, hover } = this;
    const left = byId('corner').offsetWidth;
    const shines = (correction) => this.#age(correction);
    this.rows.draw({ range, left, palette, filter, selection, hover, now, shines });
    const axis = byId('axis');
    const [width, height] = [byId('scroller').clientWidth, axis.clientHeight];
    drawAxis(prepare(axis, width, height), { range, left, width, height, palette });
    this.details.show(hover.stop || !selection.visitor ? hover : selection);
  }

  /** Returns how far the shine of something has faded, between 0 and 1; 0 if it does not shine. */
  #age({ born }) {
    const age = born === undefined || this.isStill.matches ? 1 : (performance.now() - born) / SHINE;
    if (age >= 1) return 0;
    this.shining += 1;
    return Math.max(age, 0.01);
  }

  #follow(now) {
    const [first, last] = this.extent ?? [Infinity, -Infinity];
    // Old events are shown without the years since.
    const isNear = now !== null && now - last < Math.max(last - first, 3_600_000);
    this.range.follow(first, this.range.mode === 'all' && !isNear ? last : now ?? last);
  }

  /** Returns the service's time, and how fast it runs. */
  #time() {
    const { now, speed, at } = this.time;
    return { now: now === null ? null : now + (performance.now() - at) * speed, speed };
  }

  // The pointer moves and zooms the time axis.

  wasDragged() {
    return this.isDragged;
  }

  #pointer() {
    const scroller = byId('scroller');
    const width = () => scroller.clientWidth - byId('corner').offsetWidth;
    scroller.addEventListener('pointerdown', (event) => {
      this.isDragged = false;
      // Touch scrolls.
      if (event.pointerType === 'mouse' && event.button === 0) this.dragFrom = event.clientX;
    });
    window.addEventListener('pointermove', (event) => {
      if (this.dragFrom === undefined || (!this.isDragged && Math.abs(event.clientX - this.dragFrom) < DRAG)) return;
      this.isDragged = true;
      this.range.move((this.dragFrom - event.clientX) / width());
      this.dragFrom = event.clientX;
      this.redraw();
    });
    window.addEventListener('pointerup', () => { this.dragFrom = undefined; });
    scroller.addEventListener('wheel', (event) => {
      const isAcross = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (!event.ctrlKey && !isAcross) return;
      event.preventDefault();
      const place = (event.clientX - scroller.getBoundingClientRect().left - byId('corner').offsetWidth) / width();
      if (event.ctrlKey) this.zoom(Math.exp(event.deltaY / 300), Math.min(Math.max(place, 0), 1));
      else this.range.move(event.deltaX / width());
      this.redraw();
    }, { passive: false });
  }
}

/** Returns a selection as it is now: sessions are computed anew with each change, and a visitor may be erased. */
function current(selection) {
  const { visitor } = selection;
  if (!visitor || visitor.isErased) return {};
  return refreshed(visitor, selection);
}

const EMPTY = 'Nothing has come in yet. Send an event to /events, and it appears here.';

new Page(embeddedData()).start();
