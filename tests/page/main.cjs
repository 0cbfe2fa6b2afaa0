// Runs the checks in one browser, one after the other, and prints a line for each.
//   node main.cjs [CHECK…] [--screenshots]
const fs = require('node:fs');
const path = require('node:path');
const { launch } = require('./browser.cjs');
const screenshots = require('./screenshots.cjs');

const FOLDER = path.join(__dirname, 'checks');

/** Returns the checks of these files: what each of them exports, by its name. */
function checks(names) {
  const all = fs.readdirSync(FOLDER).map((file) => path.basename(file, '.cjs')).sort();
  const wanted = names.length > 0 ? names : all;
  return wanted.flatMap((name) => Object.entries(require(path.join(FOLDER, `${name}.cjs`))).map(([title, run]) => ({ name, title, run })));
}

async function main() {
  const words = process.argv.slice(2);
  const browser = await launch();
  let failed = 0;
  try {
    for (const { name, title, run } of checks(words.filter((word) => !word.startsWith('--')))) {
      const began = Date.now();
      const note = await run(browser).then((text) => text ?? '', (error) => {
        failed += 1;
        return `FAILED: ${error.stack}`;
      });
      console.log(`${name.padEnd(14)} ${title.replaceAll('_', ' ').padEnd(66)} ${((Date.now() - began) / 1000).toFixed(1)} s  ${note}`);
    }
    if (words.includes('--screenshots')) await screenshots(browser);
  } finally {
    await browser.close();
  }
  console.log(failed === 0 ? 'page: all checks hold' : `page: ${failed} checks failed`);
  return failed === 0;
}

main().then((isGood) => process.exit(isGood ? 0 : 1), (error) => {
  console.error(error);
  process.exit(1);
});
