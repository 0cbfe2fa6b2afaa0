// `serve --fast-forward`: the clock runs faster, and sessions end.
const { equal, holds, waitForTotals, totals, withPage } = require('../browser.cjs');
const { withService } = require('../service.cjs');

exports.sample_traffic_and_an_hour_in_seconds = (browser) => withService(['--fast-forward'], ({ url, post }) => withPage(browser, url, async (page) => {
  const before = Date.now();
  await page.click('#traffic');
  await page.locator('#travel-note', { hasText: 'events are on their way' }).waitFor();
  await page.click('input[name=speed][value="600"]');
  // The story of the first run: a merge, and an event that comes hours late.
  await waitForTotals(page, { merged: 1, late: 1 }, 60_000);
  const { sessions, open } = await totals(page);
  holds(sessions - open > 20, `${sessions} sessions, ${open} of them open`);
  const passed = Date.parse(`${await page.textContent('#service-time')}Z`) - before;
  holds(passed > 3 * 3_600_000, `only ${passed} ms passed`);
  equal((await post({}, '/_page/traffic')).error?.code, 'no_traffic', 'twice');
  equal((await post({ speed: 601 }, '/_page/clock')).error?.code, 'invalid_speed', 'too fast');
  await page.click('input[name=speed][value="1"]');
  const answer = await post({ event: 'x', distinct_id: 'now' });
  equal(answer.events.length, 1, 'an event of now');
}));
