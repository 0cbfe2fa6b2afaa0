// Walks through a shop in Chromium, with one client on its pages: a visit with a second tab and a login in the middle, a way out
// and back in by another campaign, a logout.
//   node drive.cjs NAME CLIENT_FILE COLLECTOR VISIT
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const esbuild = require('esbuild');
const { chromium } = require('playwright-core');

const [, clientFile, collector, visit] = process.argv.slice(2);
const SEARCH = 'http://www.search.test/';
const SHOP = 'http://shop.test';
const ENTRY = `${SHOP}/?utm_source=news&utm_medium=mail&utm_campaign=spring&gclid=click-1`;
// How long a person looks at a page, and how long the browser stays open in the end: any client has tried again by then.
const LOOK_MS = 1500;
const STAY_MS = visit.endsWith('plain') ? 6000 : 14000;
// An ordinary browser's: posthog-js says nothing in one that calls itself headless.
const AGENT = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36';

/** Returns the client's file with all that it imports, as one script. */
async function bundle() {
  const built = await esbuild.build({
    entryPoints: [clientFile],
    bundle: true,
    write: false,
    format: 'iife',
    nodePaths: [process.env.NODE_PATH],
    define: { 'process.env.NODE_ENV': '"production"' },
    logLevel: 'error',
  });
  return built.outputFiles[0].contents;
}

/** Serves the search engine's page and the shop's on a free port, and returns the port. */
async function serve(script) {
  const page = (title, rest) => `<!doctype html><meta charset="utf-8"><title>${title}</title>${rest}`;
  const server = http.createServer((request, response) => {
    const isScript = request.url === '/client.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    if (isScript) return response.end(script);
    const isSearch = request.headers.host === 'www.search.test';
    const shop = '<a id="account" href="/account">Account</a><script src="/client.js"></script>';
    response.end(isSearch ? page('Search', `<a id="shop" href="${ENTRY}">Shop</a>`) : page('Shop', shop));
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  server.unref();
  return server.address().port;
}

/** Starts a browser with a profile of its own, in which only this machine's servers exist. */
async function open(profile, sites) {
  const to = `127.0.0.1:${sites}`;
  const { host } = new URL(collector);
  const rules = [`MAP shop.test ${to}`, `MAP www.search.test ${to}`, `MAP collector.test ${host}`, 'MAP * ~NOTFOUND'];
  return chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM,
    headless: true,
    userAgent: AGENT,
    args: [
      `--host-resolver-rules=${rules.join(',')}`, '--no-proxy-server', '--no-sandbox', '--disable-gpu', '--disable-quic',
      '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      // posthog-js says nothing in a browser that calls itself driven.
      '--disable-blink-features=AutomationControlled',
    ],
  });
}

/** Calls a function of the client's file on a page. */
const call = (page, name, ...given) =>
  page.evaluate(([name, given]) => window.client[name](...given), [name, given]);

async function walk(context) {
  const page = await context.newPage();
  const look = () => page.waitForTimeout(LOOK_MS);
  await page.goto(SEARCH);
  await page.click('#shop');
  await look();
  await call(page, 'event', 'product_viewed');
  await look();
  const tab = await context.newPage();
  await tab.goto(`${SHOP}/product?id=7`);
  await look();
  await tab.close({ runBeforeUnload: true });
  await call(page, 'login', `user-${visit}`);
  await look();
  await page.click('#account');
  await look();
  await call(page, 'group', 'acme');
  await call(page, 'alias', `user-${visit}`);
  await look();
  await call(page, 'event', 'last_words');
  await page.goto(SEARCH);
  await look();
  await page.goto(`${SHOP}/?utm_source=other`);
  await look();
  await call(page, 'reset');
  await call(page, 'event', 'after_reset');
  await page.waitForTimeout(STAY_MS);
}

async function main() {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'clients-'));
  try {
    const context = await open(profile, await serve(await bundle()));
    await walk(context);
    await context.close();
  } finally {
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
