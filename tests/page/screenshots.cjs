// Writes the pictures of docs/images: the page in both themes, with an event shown.
const path = require('node:path');
const { ROOT, visits, waitForTotals, withPage } = require('./browser.cjs');

const SIZE = { width: 1240, height: 744 };

module.exports = async (browser) => {
  for (const colorScheme of ['light', 'dark']) {
    await withPage(browser, visits(), async (page) => {
      await waitForTotals(page, { visitors: 22 });
      await page.waitForTimeout(400);
      await page.click('.name button:has-text("ada")');
      for (let at = 0; at < 4; at += 1) await page.keyboard.press('ArrowRight');
      await page.screenshot({ path: path.join(ROOT, 'docs/images', `page-${colorScheme}.png`) });
    }, { colorScheme, viewport: SIZE });
  }
};
