// Accessibility by the rules of axe-core, in both themes, on wide and narrow screens, and with an event shown.
const fs = require('node:fs');
const { holds, visits, waitForTotals, withPage } = require('../browser.cjs');
const { withService } = require('../service.cjs');

const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

async function check(page) {
  // The page's policy forbids scripts from elsewhere; the debugger may run one.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run());
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).slice(0, 3).join(' | ')}`);
  holds(told.length === 0, told.join('\n'));
}

for (const [colorScheme, width] of [['light', 1280], ['dark', 1280], ['light', 390]]) {
  exports[`axe_finds_nothing_in_the_${colorScheme}_theme_${width}_pixels_wide`] = (browser) => withPage(browser, visits(), async (page) => {
    await waitForTotals(page, { visitors: 22 });
    await check(page);
    await page.locator('.name button').first().click();
    await page.keyboard.press('ArrowRight');
    await check(page);
  }, { colorScheme, viewport: { width, height: 800 } });
}

exports.axe_finds_nothing_in_the_live_page = (browser) => withService(['--fast-forward'], ({ url, post }) => withPage(browser, url, async (page) => {
  await check(page);
  await post([{ event: '$pageview', distinct_id: 'ada' }, { event: 'x' }]);
  await waitForTotals(page, { events: 1, rejected: 1 });
  await check(page);
}));

exports.the_theme_can_be_chosen_and_nothing_moves_by_itself = (browser) => withPage(browser, visits(), async (page) => {
  await waitForTotals(page, { visitors: 22 });
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const [automatic] = [await paper()];
  await page.click('#theme');
  await page.click('#theme');
  holds((await paper()) !== automatic && (await page.textContent('#theme')) === 'Theme: dark', 'the dark theme');
  await page.reload();
  holds((await page.textContent('#theme')) === 'Theme: dark', 'the theme is remembered');
  const moving = await page.evaluate(() => document.getAnimations().length);
  holds(moving === 0, `${moving} animations`);
}, { colorScheme: 'light', reducedMotion: 'reduce' });
