// Names, URLs and ids that strangers chose.
const { equal, holds, recorded, waitForTotals, withPage } = require('../browser.cjs');
const { withService } = require('../service.cjs');

const ATTACKS = [
  '<script>window.broken = 1</script>',
  '</script><script>window.broken = 1</script>',
  '<!--<script>',
  ']]><img src=x onerror="window.broken = 1">',
  '"><svg onload=window.broken=1>',
  '\' onfocus=window.broken=1 autofocus x=\'',
  '/* script */ <!-- data --> $& $1 `${1}` \u2028\u2029',
  '\u202eright to left \u0300\u0301',
  'x'.repeat(200),
];

const events = () => ATTACKS.map((attack, at) => ({
  uuid: attack.slice(0, 60),
  event: attack.slice(0, 100),
  distinct_id: attack.slice(0, 200),
  project: at % 2 ? `p<script>window.broken=1</script>${at}` : undefined,
  timestamp: `2026-03-10T12:0${at}:00Z`,
  properties: { $current_url: `https://shop.test/?utm_source=${attack}`, $referrer: `javascript:${attack}`, utm_campaign: attack },
}));

/** Looks at every event; nothing in it may be more than text. */
async function look(page) {
  await waitForTotals(page, { visitors: ATTACKS.length });
  const shown = await page.$$eval('.name button', (buttons) => buttons.map((button) => button.textContent));
  equal(shown, ATTACKS, 'names');
  for (let at = 0; at < ATTACKS.length; at += 1) {
    await page.locator('.name button').nth(at).click();
    await page.keyboard.press('ArrowRight');
    holds((await page.locator('#details h2').innerText()).length > 0, 'no event');
  }
  equal(await page.evaluate(() => [window.broken, document.querySelectorAll('img, svg, script').length]), [undefined, 2], 'scripts');
}

exports.in_a_file_they_are_text = (browser) => {
  const lines = `${events().map((event) => JSON.stringify(event)).join('\n')}\n`;
  return withPage(browser, recorded('<!-- data --></title><script>window.broken=1<script>.ndjson'.replaceAll('/', '∕'), lines), look);
};

exports.in_the_feed_they_are_text = (browser) => withService([], ({ url, post }) => withPage(browser, url, async (page) => {
  await post(events());
  await look(page);
}));
