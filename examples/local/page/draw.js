import { drawShape, reasonOf, REASONS } from './reasons.js';
import { marks } from './time.js';

/** Sizes in pixels, which page.css shares: --row and --axis. */
export const ROW = 36;
const BAR_TOP = 14;
const BAR = 13;
/** The size of a reason's shape, and how near to the last one it may be. */
const SHAPE = 9;
const SHAPE_DISTANCE = 7;
/** Where a session of one moment is as wide as this. */
const LEAST_BAR = 5;
const MARK_DISTANCE = 88;
/** What the name of the time zone takes of the axis. */
const ZONE = 44;
/** How long something that just happened shines, in milliseconds. */
export const SHINE = 1800;
const BADGES = { late: 'L', merged: 'M', split: 'S' };
const FONT = '500 11px system-ui, sans-serif';

/** The names of the colors in page.css that the canvas needs. */
const COLORS = ['paper', 'ink', 'dim', 'line', 'late', 'badge', 'badge-ink', 'accent', 'unknown', ...REASONS.map(({ name }) => name)];

/** Returns the colors of the theme that is in effect. Only an element's own color is computed, so one takes on each of them. */
export function colors() {
  const probe = document.body.appendChild(document.createElement('i'));
  const style = getComputedStyle(probe);
  const found = COLORS.map((name) => {
    probe.style.color = `var(--${name.replaceAll('_', '-')})`;
    return [name, style.color];
  });
  probe.remove();
  return Object.fromEntries(found);
}

/** Makes a canvas as large as its element, in the pixels of the screen; returns its context, empty. */
export function prepare(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Draws the time axis. */
export function drawAxis(context, { range, left, width, height, palette }) {
  context.font = FONT;
  context.textBaseline = 'middle';
  for (const { time, label, isDay } of marks(range, width - left, MARK_DISTANCE)) {
    const x = Math.round(range.x(time, left, width)) + 0.5;
    context.strokeStyle = palette.line;
    line(context, x, height - 7, x, height);
    context.fillStyle = isDay ? palette.ink : palette.dim;
    if (x + 4 + context.measureText(label).width < width - ZONE) context.fillText(label, x + 4, height / 2);
  }
}

/** Draws the rows that are visible; returns how many things it drew. */
export function drawRows(context, view) {
  const { range, left, width, height, palette } = view;
  context.strokeStyle = palette.line;
  for (const { time } of marks(range, width - left, MARK_DISTANCE)) {
    const x = Math.round(range.x(time, left, width)) + 0.5;
    line(context, x, 0, x, height);
  }
  context.save();
  context.beginPath();
  context.rect(left, 0, width - left, height);
  context.clip();
  let drawn = 0;
  view.visible.forEach(({ visitor, top }) => {
    drawn += drawVisitor(context, visitor, top, view);
  });
  if (view.now !== null) drawNow(context, view);
  context.restore();
  return drawn;
}

function drawNow(context, { range, left, width, height, now, palette }) {
  const x = Math.round(range.x(now, left, width)) + 0.5;
  context.strokeStyle = palette.accent;
  context.setLineDash([2, 3]);
  line(context, x, 0, x, height);
  context.setLineDash([]);
}

function drawVisitor(context, visitor, top, view) {
  const { range, left, width, palette } = view;
  context.strokeStyle = palette.line;
  line(context, left, top + ROW - 0.5, width, top + ROW - 0.5);
  const inRange = visitor.sessions.filter(({ start, stop }) => stop >= range.from && start <= range.to);
  let drawn = inRange.length;
  for (const session of inRange) drawn += drawSession(context, session, top, view);
  drawShapes(context, inRange, top, view);
  for (const event of visitor.events) {
    if (event.current || event.at < range.from || event.at > range.to) continue;
    tick(context, range.x(event.at, left, width), top + BAR_TOP + 3, BAR - 6, palette.dim);
    drawn += 1;
  }
  for (const correction of visitor.corrections) {
    if (correction.place < range.from || correction.place > range.to) continue;
    badge(context, BADGES[correction.kind], range.x(correction.place, left, width), top, palette);
    if (view.shines(correction)) shine(context, range.x(correction.place, left, width), top, view.shines(correction), palette);
    drawn += 1;
  }
  return drawn;
}

function drawSession(context, session, top, view) {
  const { range, left, width, palette, selection } = view;
  const isShown = view.filter.shows(session);
  const color = isShown ? palette[reasonOf(session.reason).name] : palette.line;
  const begin = Math.max(range.x(session.start, left, width), left - 20);
  const end = Math.min(range.x(session.stop, left, width), width + 20);
  const [x, wide] = [begin - 1, Math.max(end - begin + 2, LEAST_BAR)];
  bar(context, x, top + BAR_TOP, wide, color, isShown, session.isOpen);
  if (session === selection.session) {
    context.strokeStyle = palette.ink;
    context.strokeRect(Math.round(x) - 1.5, top + BAR_TOP - 1.5, Math.round(wide) + 3, BAR + 3);
  }
  return isShown ? drawTicks(context, session, top, color, view) : 0;
}

/** Draws why each session began, at its start. Where sessions begin closer together than shapes are wide, their colors have to do. */
function drawShapes(context, sessions, top, { range, left, width, palette, filter }) {
  const y = top + BAR_TOP + BAR / 2;
  let last = -Infinity;
  for (const session of sessions) {
    const x = range.x(session.start, left, width);
    if (!filter.shows(session) || x - last < SHAPE_DISTANCE) continue;
    last = x;
    const { shape, name } = reasonOf(session.reason);
    context.fillStyle = palette.paper;
    drawShape(context, shape, x, y, SHAPE + 4);
    context.fillStyle = palette[name];
    drawShape(context, shape, x, y, SHAPE);
  }
}

/** Draws a session's bar: closed where its end was emitted; with a dashed line, and open to the right, where it was not. */
function bar(context, x, y, wide, color, isShown, isOpen) {
  context.fillStyle = color;
  context.globalAlpha = isShown ? 0.26 : 0.15;
  context.fillRect(x, y, wide, BAR);
  context.globalAlpha = isShown ? 0.85 : 0.4;
  if (isOpen) {
    for (let at = x; at < x + wide; at += 6) context.fillRect(at, y + BAR - 2, Math.min(3, x + wide - at), 2);
  } else {
    context.fillRect(x, y + BAR - 2, wide, 2);
    context.fillRect(x + wide - 2, y, 2, BAR);
  }
  context.globalAlpha = 1;
}

/** Draws the ticks of a session's events. Those that fall on one pixel are drawn once. */
function drawTicks(context, session, top, color, { range, left, width, palette, hover, selection }) {
  let [drawn, last] = [0, -1];
  for (const event of session.events) {
    if (event.at < range.from || event.at > range.to) continue;
    const x = range.x(event.at, left, width);
    if (event.isLate) {
      tick(context, x, top + BAR_TOP - 2, BAR + 4, palette.late);
      badge(context, BADGES.late, x, top, palette);
    }
    if (event === hover.event || event === selection.event) {
      context.fillStyle = palette.ink;
      context.fillRect(Math.round(x) - 1, top + BAR_TOP - 4, 3, BAR + 8);
    }
    if (Math.round(x) === last) continue;
    last = Math.round(x);
    if (!event.isLate) tick(context, x, top + BAR_TOP, BAR, color);
    drawn += 1;
  }
  return drawn;
}

function tick(context, x, y, high, color) {
  context.fillStyle = color;
  context.fillRect(Math.round(x) - 0.75, y, 1.5, high);
}

/** Draws the letter of something special above a bar. */
function badge(context, letter, x, top, palette) {
  context.fillStyle = palette.badge;
  context.beginPath();
  context.roundRect(Math.round(x) - 6, top + 1, 12, 11, 3);
  context.fill();
  context.fillStyle = palette['badge-ink'];
  context.font = '700 9px system-ui, sans-serif';
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  context.fillText(letter, Math.round(x), top + 7);
  context.textAlign = 'start';
}

/** Draws a ring that grows and fades around what just happened; `age` is between 0 and 1. */
function shine(context, x, top, age, palette) {
  context.strokeStyle = palette.badge;
  context.globalAlpha = 1 - age;
  context.lineWidth = 2;
  context.beginPath();
  context.arc(x, top + BAR_TOP + BAR / 2, 8 + 22 * age, 0, 2 * Math.PI);
  context.stroke();
  context.lineWidth = 1;
  context.globalAlpha = 1;
}

function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}
