// The page without a pointer.
const { equal, holds, recordedFile, visits, waitForTotals, withPage } = require('../browser.cjs');

const focused = (page) => page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent);

/** Presses keys, one after the other; returns the label of what has the focus then. */
async function press(page, ...keys) {
  for (const key of keys) await page.keyboard.press(key);
  return focused(page);
}

/** Goes to the timelines with the Tab key. */
async function enter(page) {
  await page.locator('#zoom-in').focus();
  for (let at = 0; at < 30; at += 1) {
    await page.keyboard.press('Tab');
    if (await page.evaluate(() => document.getElementById('scroller').contains(document.activeElement))) return focused(page);
  }
  throw new Error('the Tab key does not lead to the timelines');
}

exports.arrow_keys_lead_to_visitors_events_and_sessions = (browser) => withPage(browser, visits(), async (page) => {
  await waitForTotals(page, { visitors: 22 });
  equal(await enter(page), 'ada, project shop: 3 sessions, 13 events', 'the first row');
  const steps = [
    [['ArrowRight'], /^\$pageview, 2026-03-10 09:05:00, event 1 of 3, session 1 of 3, began by first, ended$/],
    [['ArrowRight'], /09:09:00, event 2 of 3, session 1/],
    [['Shift+ArrowRight'], /09:24:00, event 1 of 4, session 2 of 3, began by campaign/],
    [['ArrowLeft'], /09:16:00, event 3 of 3, session 1/],
    [['End'], /session 3 of 3, began by timeout/],
    [['Shift+ArrowLeft'], /event 1 of 4, session 2/],
    [['Home'], /event 1 of 3, session 1/],
    [['ArrowDown'], /^\$pageview, .* session 1 of/],
    [['Escape'], /^dan, project shop/],
    [['Control+End'], /^vera, project blog/],
    [['Control+Home'], /^ada, /],
    [['PageDown'], /, project /],
  ];
  for (const [keys, label] of steps) {
    const found = await press(page, ...keys);
    holds(label.test(found), `${keys}: \`${found}\`, not ${label}`);
  }
  const late = await press(page, ...Array(30).fill('ArrowUp'), ...(await rowsTo(page, 'finn')), 'ArrowRight', ...Array(6).fill('ArrowRight'));
  holds(/review_written, .*, late$/.test(late), `a late event: ${late}`);
  holds((await page.locator('#details').innerText()).includes('late'), 'the details show the event');
});

/** Returns the keys that lead from the first row to a visitor's. */
async function rowsTo(page, name) {
  const names = await page.$$eval('.name button', (buttons) => buttons.map((button) => button.textContent));
  holds(names.includes(name), `${name} is not in view`);
  return Array(names.indexOf(name)).fill('ArrowDown');
}

/** The element that has the focus stays in the document, or else the keyboard would begin anew. */
exports.the_focus_survives_scrolling_and_zooming = (browser) => withPage(browser, recordedFile('weblog-events.ndjson'), async (page) => {
  await waitForTotals(page, { sessions: 3231 });
  await enter(page);
  const label = await press(page, 'ArrowDown', 'ArrowRight');
  await page.$eval('#scroller', (element) => { element.scrollTop = 20_000; });
  await page.waitForTimeout(200);
  equal(await focused(page), label, 'after scrolling');
  await press(page, '+', '+', '-');
  equal(await focused(page), label, 'after zooming');
  const next = await press(page, 'ArrowDown');
  holds(next !== label, 'the arrow key moves on');
  const isInView = await page.evaluate(() => {
    const [box, view] = [document.activeElement.getBoundingClientRect(), document.getElementById('scroller').getBoundingClientRect()];
    return box.top >= view.top && box.bottom <= view.bottom && box.right <= view.right + 10;
  });
  holds(isInView, 'what has the focus is in view');
});
