// A browser, pages that must not fail, and what is measured of them.
const fs = require('node:fs');
const path = require('node:path');
const os = require('node:os');
const { execFileSync } = require('node:child_process');
const { pathToFileURL } = require('node:url');
const { chromium } = require('playwright-core');

const ROOT = path.join(__dirname, '../..');
const DATA = path.join(ROOT, 'tests/data');

const launch = () => chromium.launch({
  executablePath: process.env.CHROMIUM,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update'],
});

/**
 * Opens a page, hands it to a function, and closes it. The check fails if the page logs an error, opens a dialog, or asks any host
 * but its own for anything.
 */
async function withPage(browser, url, use, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const faults = [];
  const own = new URL(url);
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('console', (message) => message.type() === 'error' && faults.push(`console: ${message.text()}`));
  page.on('dialog', (dialog) => { faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('request', (request) => {
    const to = new URL(request.url());
    if (to.protocol !== 'data:' && (to.protocol !== own.protocol || to.host !== own.host)) faults.push(`request: ${request.url()}`);
  });
  try {
    await page.goto(url);
    const result = await use(page, { ignore: (pattern) => faults.splice(0, faults.length, ...faults.filter((fault) => !pattern.test(fault))) });
    if (faults.length > 0) throw new Error(faults.join('\n'));
    return result;
  } finally {
    await context.close();
  }
}

/** Replays events into a page in a file; returns its URL. */
function recorded(name, lines, ...options) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'page-'));
  const input = path.join(folder, name);
  fs.writeFileSync(input, lines);
  const output = path.join(folder, 'out.html');
  execFileSync(process.env.LOCAL, ['replay', input, '--html', output, ...options], { stdio: ['ignore', 'ignore', 'ignore'] });
  return pathToFileURL(output).href;
}

/** The same, once for each file of tests/data. */
const files = new Map();
function recordedFile(name, ...options) {
  if (!files.has(name)) files.set(name, recorded(name, fs.readFileSync(path.join(DATA, name)), ...options));
  return files.get(name);
}

/** The options with which tests/data/page-visits.ndjson shows every mark. */
const VISITS = ['page-visits.ndjson', '--batch', '1', '--rules', '{"new_session_on_click_id_change":true}'];
const visits = () => recordedFile(...VISITS);

/** Returns the totals that are shown, by name. */
const totals = (page) => page.evaluate(() => Object.fromEntries([...document.querySelectorAll('#totals div')].map((box) => [
  box.dataset.total, Number(box.querySelector('dd').textContent.replaceAll(',', '')),
])));

/** Waits until the totals are these. */
async function waitForTotals(page, wanted, timeout = 30_000) {
  const until = Date.now() + timeout;
  let found;
  do {
    found = await totals(page);
    if (Object.entries(wanted).every(([name, number]) => found[name] === number)) return found;
    await page.waitForTimeout(100);
  } while (Date.now() < until);
  throw new Error(`the totals are ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`);
}

/** Counts what is in the document and on the canvas. */
const drawn = (page) => page.evaluate(() => ({
  nodes: document.querySelectorAll('*').length,
  rows: document.querySelectorAll('.row').length,
  canvasRows: Number(document.getElementById('canvas').dataset.rows),
}));

/** Starts to measure the time between frames, and tasks of more than 50 ms. */
const measure = (page) => page.evaluate(() => {
  const measured = { frames: [], tasks: [] };
  new PerformanceObserver((list) => measured.tasks.push(...list.getEntries().map(({ duration }) => Math.round(duration))))
    .observe({ type: 'longtask' });
  let last = performance.now();
  const frame = (now) => {
    measured.frames.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
  window.measured = measured;
});

/** Returns what was measured, as a part of a line. */
const measuredText = (page) => page.evaluate(() => {
  const { frames, tasks } = window.measured;
  const sorted = frames.slice(1).sort((one, other) => one - other);
  const at = (part) => Math.round(sorted[Math.floor(part * (sorted.length - 1))]);
  return `${sorted.length} frames: median ${at(0.5)} ms, 99 % ${at(0.99)} ms; ${tasks.length} long tasks, longest ${Math.max(0, ...tasks)} ms`;
});

function equal(found, wanted, what) {
  const [one, other] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (one !== other) throw new Error(`${what}: ${one}, not ${other}`);
}

function holds(condition, what) {
  if (!condition) throw new Error(what);
}

module.exports = {
  DATA, ROOT, drawn, equal, holds, launch, measure, measuredText, recorded, recordedFile, totals, visits, waitForTotals, withPage,
};
