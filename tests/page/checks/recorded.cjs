// The page that `replay --html` writes.
const fs = require('node:fs');
const path = require('node:path');
const {
  DATA, drawn, equal, holds, measure, measuredText, recordedFile, visits, waitForTotals, withPage,
} = require('../browser.cjs');

const WEBLOG = 'weblog-events.ndjson';

/** The page folds the output by the rules of docs/output.md; a program in Rust did it for the file of known sessions. */
exports.ten_thousand_events_have_the_known_sessions = (browser) => withPage(browser, recordedFile(WEBLOG), async (page) => {
  await waitForTotals(page, { visitors: 1861, events: 9999, sessions: 3231, open: 0 });
  const known = fs.readFileSync(path.join(DATA, 'weblog-sessions.ndjson'), 'utf8').trim().split('\n').map((line) => JSON.parse(line).reason);
  const counts = await page.$$eval('#legend button', (buttons) => buttons.filter((button) => button.offsetParent)
    .map((button) => Number(button.querySelector('.number').textContent.replaceAll(',', ''))));
  const reasons = ['first', 'timeout', 'referrer_change'];
  equal(counts, reasons.map((reason) => known.filter((one) => one === reason).length), 'sessions by reason');
});

/** Counts are compared, because frame times differ from machine to machine; those are printed. */
exports.scrolling_draws_only_what_is_in_view = (browser) => withPage(browser, recordedFile(WEBLOG), async (page) => {
  await waitForTotals(page, { sessions: 3231 });
  await measure(page);
  const height = await page.$eval('#scroller', (element) => element.scrollHeight);
  for (let at = 0; at <= 40; at += 1) {
    await page.$eval('#scroller', (element, top) => { element.scrollTop = top; }, (height * at) / 40);
    await page.waitForTimeout(16);
    const { nodes, rows, canvasRows } = await drawn(page);
    holds(nodes < 500 && rows <= canvasRows + 1 && canvasRows <= 20, `nodes ${nodes}, rows ${rows}, rows on the canvas ${canvasRows}`);
  }
  return measuredText(page);
});

exports.every_mark_is_counted = (browser) => withPage(browser, visits(), async (page) => {
  const found = await waitForTotals(page, { merged: 1, split: 1, late: 1, duplicates: 1, rejected: 1, open: 0 });
  equal([found.visitors, found.events], [22, 289], 'visitors and events');
});

exports.filters_narrow_the_rows = (browser) => withPage(browser, visits(), async (page) => {
  await waitForTotals(page, { visitors: 22 });
  const names = async () => {
    await page.waitForTimeout(400);
    return page.$$eval('.name button', (buttons) => buttons.map((button) => button.textContent).sort());
  };
  await page.fill('#search', 'AD');
  equal(await names(), ['ada'], 'by name');
  await page.fill('#search', '');
  await page.selectOption('#project', { label: 'blog' });
  equal(await names(), ['june', 'kai', 'lena', 'mia', 'sam', 'vera'], 'by project');
  await page.selectOption('#project', { label: 'all projects' });
  for (const [kind, name] of [['late', 'finn'], ['merged', 'ben'], ['split', 'cleo']]) {
    await page.selectOption('#marked', kind);
    equal(await names(), [name], kind);
  }
  await page.selectOption('#marked', 'any');
  for (const label of ['first', 'timeout', 'campaign']) await page.click(`#legend button:has-text("${label}")`);
  equal(await names(), ['eve', 'gus'], 'by reason: a referrer, a click id');
});

exports.pointing_at_an_event_shows_the_decision = (browser) => withPage(browser, visits(), async (page) => {
  await waitForTotals(page, { visitors: 22 });
  await page.fill('#search', 'ada');
  await page.waitForTimeout(400);
  await page.click('.name button:has-text("ada")');
  for (let at = 0; at < 4; at += 1) await page.keyboard.press('ArrowRight');
  const box = await page.locator('.cursor').boundingBox();
  // Away with the cursor: now the pointer alone tells.
  await page.keyboard.press('Escape');
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  const text = await page.locator('#details').innerText();
  for (const part of ['$pageview', 'utm_source=ads', 'It began a session', 'campaign decided', 'news', '≤ 30 min', '8 min', 'Session 2 of']) {
    holds(text.includes(part), `the details have no \`${part}\`: ${text}`);
  }
});

exports.a_narrow_screen_needs_no_scrolling_across = (browser) => withPage(browser, visits(), async (page) => {
  await waitForTotals(page, { visitors: 22 });
  const { wide, rows } = await page.evaluate(() => ({ wide: document.documentElement.scrollWidth, rows: document.querySelectorAll('.row').length }));
  holds(wide <= 390 && rows >= 4, `${wide} pixels wide, ${rows} rows`);
  const box = await page.locator('#canvas').boundingBox();
  await page.touchscreen.tap(box.x + 60, box.y + 18);
  holds((await page.locator('#details').innerText()).includes('Visitor'), 'a tap shows nothing');
}, { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
