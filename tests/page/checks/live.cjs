// The page of a running service.
const { drawn, equal, holds, measure, measuredText, waitForTotals, withPage } = require('../browser.cjs');
const { start, withService } = require('../service.cjs');

/** Sessions end a second after their last event. */
const SHORT = ['--close-every', '1', '--grace', '0', '--rules', '{"timeout_seconds":1,"lateness_seconds":0}'];

exports.sessions_grow_and_end_as_it_happens = (browser) => withService(SHORT, ({ url, post }) => withPage(browser, url, async (page) => {
  await post({ event: '$pageview', distinct_id: 'ada' });
  await waitForTotals(page, { visitors: 1, events: 1, sessions: 1, open: 1 });
  await waitForTotals(page, { open: 0 });
  await post({ event: '$pageview', distinct_id: 'ada' });
  await waitForTotals(page, { visitors: 1, events: 2, sessions: 2 });
  holds((await page.locator('#news').innerText()).includes('a session ended'), 'the end is told');
}));

exports.corrections_duplicates_and_clients_are_shown = (browser) => withService(['--close-every', '1', '--grace', '0'], ({ url, post }) => withPage(browser, url, async (page) => {
  const at = (minutes) => new Date(Date.now() - minutes * 60_000).toISOString();
  const event = (uuid, minutes, more = {}) => ({ uuid, event: '$pageview', distinct_id: 'ben', timestamp: at(minutes), ...more });
  await post(event('1', 100));
  await post(event('2', 60));
  await waitForTotals(page, { events: 2, sessions: 2, merged: 0 });
  await post(event('3', 80));
  await waitForTotals(page, { events: 3, sessions: 1, merged: 1 }, 60_000);
  await post(event('3', 80));
  await waitForTotals(page, { events: 3, duplicates: 1 });
  await post({ type: 'track', event: 'bought', userId: 'segments' }, '/v1/track');
  await waitForTotals(page, { visitors: 2, events: 4 });
  await fetch(`${url}/v1/visitors/ben`, { method: 'DELETE' });
  await waitForTotals(page, { visitors: 1, sessions: 1 });
}));

/** The service explains events while a page is open: the values are its own, and not what the page could tell. */
exports.the_service_explains_what_it_decides = (browser) => withService([], ({ url, post }) => withPage(browser, url, async (page) => {
  await page.locator('#state', { hasText: 'live' }).waitFor();
  const ago = (minutes) => new Date(Date.now() - minutes * 60_000).toISOString();
  for (const minutes of [40, 0]) await post({ uuid: `${minutes}`, event: '$pageview', distinct_id: 'ada', timestamp: ago(minutes) });
  await waitForTotals(page, { events: 2, sessions: 2 });
  await page.click('.name button');
  await page.keyboard.press('End');
  const text = await page.locator('#details').innerText();
  for (const part of ['It began a session', 'timeout decided', '≤ 30 min', '40 min', 'max duration', '≤ 1 d']) {
    holds(text.includes(part), `the details have no \`${part}\`: ${text}`);
  }
}));

/** 10,000 events of 2,000 visitors come in while somebody scrolls. */
exports.ten_thousand_events_stream_in_while_scrolling = (browser) => withService([], ({ url, post }) => withPage(browser, url, async (page) => {
  await measure(page);
  let isDone = false;
  const sending = (async () => {
    for (let at = 0; at < 10_000; at += 500) {
      await post(Array.from({ length: 500 }, (_, more) => ({
        event: '$pageview', distinct_id: `visitor-${(at + more) % 2_000}`, uuid: `e${at + more}`,
      })));
    }
    isDone = true;
  })();
  let most = 0;
  for (let step = 0; !isDone && step < 4_000; step += 1) {
    await page.$eval('#scroller', (element, at) => { element.scrollTop = (at % 50) * (element.scrollHeight / 50); }, step);
    await page.waitForTimeout(30);
    const { nodes, canvasRows } = await drawn(page);
    most = Math.max(most, nodes);
    holds(canvasRows <= 20, `${canvasRows} rows on the canvas`);
  }
  await sending;
  await waitForTotals(page, { visitors: 2_000, events: 10_000, sessions: 2_000, open: 2_000 });
  holds(most < 500, `${most} nodes in the document`);
  return measuredText(page);
}));

/** A page that lost its service shows what the next one on this port knows, and nothing of the first. */
exports.a_service_that_begins_anew_begins_a_new_page = async (browser) => {
  const first = await start([]);
  await withPage(browser, first.url, async (page, { ignore }) => {
    await first.post([{ event: 'x', distinct_id: 'ada' }, { event: 'x', distinct_id: 'ben' }]);
    await waitForTotals(page, { visitors: 2 });
    await first.stop();
    await page.waitForFunction(() => document.getElementById('state').textContent.startsWith('reconnecting'));
    const second = await start([], first.port);
    try {
      await second.post({ event: 'x', distinct_id: 'cleo' });
      await waitForTotals(page, { visitors: 1, events: 1 });
      equal(await page.$$eval('.name button', (buttons) => buttons.map((button) => button.textContent)), ['cleo'], 'visitors');
    } finally {
      await second.stop();
    }
    ignore(/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_NETWORK|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE/);
  });
};

exports.without_the_flag_there_is_no_time_travel = (browser) => withService([], ({ url, post }) => withPage(browser, url, async (page) => {
  holds(!(await page.locator('#time-travel').isVisible()), 'the control is shown');
  for (const path of ['/_page/clock', '/_page/traffic']) {
    const answer = await post({ speed: 600 }, path);
    equal(answer.error?.code, 'no_such_path', path);
  }
}));
