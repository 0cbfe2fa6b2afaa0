// Records, reads back, plays and compares: see `run`.
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const zlib = require('node:zlib');
const esbuild = require('esbuild');
const { chromium } = require('playwright-core');

const RECORDERS = ['rrweb', 'posthog'];
const SIZE = { width: 800, height: 600 };
// What a visitor types. None of it may be stored.
const TYPED = { '#mail': 'ada@canary.test', '#password': 'canary-password', '#note': 'canary note' };
// The last frame may differ from the page in at most one of a thousand pixels, by more than 32 of 255 in a channel: edges of
// letters can be drawn differently inside of a frame.
const MAX_DIFFERENT = 0.001;
const THRESHOLD = 32;
const AGENT = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36';

async function bundle(file) {
  const built = await esbuild.build({
    entryPoints: [path.join(__dirname, file)],
    bundle: true,
    write: false,
    format: 'iife',
    nodePaths: [process.env.NODE_PATH],
    define: { 'process.env.NODE_ENV': '"production"' },
    logLevel: 'error',
  });
  return built.outputFiles[0].contents;
}

/** Serves the page with a recorder, and the player, on a free port. Returns the port. */
async function serve(recorder) {
  const style = fs.readFileSync(path.join(process.env.NODE_PATH, 'rrweb-player/dist/style.css'));
  const player = `<!doctype html><meta charset="utf-8"><style>body { margin: 0 } ${style} .replayer-mouse { display: none }</style>
    <script src="/player.js" defer></script>`;
  const files = {
    '/recorder.js': ['text/javascript', await bundle(`recorder_${recorder}.js`)],
    '/player.js': ['text/javascript', await bundle('player.js')],
    '/player': ['text/html', player],
  };
  const page = ['text/html', fs.readFileSync(path.join(__dirname, 'page.html'))];
  const server = http.createServer((request, response) => {
    const [kind, body] = files[request.url] ?? page;
    response.setHeader('content-type', kind);
    response.end(body);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  server.unref();
  return server.address().port;
}

/** Starts the service with a folder for recordings. */
async function service(folder) {
  const args = ['serve', '--port', '0', '--dynamodb-port', '0', '--replay', folder];
  const process_ = spawn(process.env.LOCAL, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const port = await new Promise((done, fail) => {
    let log = '';
    process_.stderr.on('data', (text) => {
      log += text;
      const found = /HTTP API +http:\/\/127\.0\.0\.1:(\d+)\//.exec(log);
      if (found) done(Number(found[1]));
    });
    process_.on('exit', () => fail(new Error(`the service did not start: ${log}`)));
  });
  return { port, stop: () => process_.kill() };
}

async function open(sites, collector) {
  const rules = [`MAP shop.test 127.0.0.1:${sites}`, `MAP collector.test 127.0.0.1:${collector}`, 'MAP * ~NOTFOUND'];
  return chromium.launch({
    executablePath: process.env.CHROMIUM,
    headless: true,
    args: [
      `--host-resolver-rules=${rules.join(',')}`, '--no-proxy-server', '--no-sandbox', '--disable-gpu', '--disable-quic',
      '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      '--disable-blink-features=AutomationControlled', '--hide-scrollbars', '--font-render-hinting=none',
    ],
  });
}

/** Visits the page as a person would. Returns the visitor, and a picture of the page in which what was typed is masked. */
async function record(browser) {
  const context = await browser.newContext({ viewport: SIZE, userAgent: AGENT });
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error));
  await page.goto('http://shop.test/');
  await page.waitForTimeout(3000);
  for (const [input, text] of Object.entries(TYPED)) await page.type(input, text, { delay: 20 });
  await page.evaluate(() => window.recorder.login?.());
  await page.selectOption('#country', 'fr');
  await page.check('#news');
  for (let card = 0; card < 9; card += 1) await page.click('#add');
  await page.mouse.move(300, 400, { steps: 10 });
  await page.click('.card:nth-child(2)');
  await page.mouse.wheel(0, 120);
  await page.waitForTimeout(1500);
  await page.evaluate(() => document.activeElement.blur());
  await page.mouse.move(790, 590);
  await page.waitForTimeout(1000);
  await page.evaluate(() => window.recorder.finish());
  const visitor = await page.evaluate(() => window.recorder.visitor());
  await page.evaluate((inputs) => {
    for (const input of inputs) {
      const element = document.querySelector(input);
      element.value = '*'.repeat(element.value.length);
    }
    // Which option was chosen is masked, too: the first one is shown.
    document.querySelector('#country').selectedIndex = -1;
  }, Object.keys(TYPED));
  const picture = await page.screenshot();
  if (errors.length > 0) throw errors[0];
  await context.close();
  return { visitor, picture };
}

/** Reads the replay of a visitor's session, in pages. */
async function read(port, visitor) {
  const get = async (route) => {
    const answer = await fetch(`http://127.0.0.1:${port}${route}`);
    if (!answer.ok) throw new Error(`${route}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  };
  const session = await get(`/v1/visitors/${encodeURIComponent(visitor)}/session`);
  const events = [];
  let after = '';
  do {
    const page = await get(`/v1/sessions/${session.id}/replay?limit=25&after=${after}`);
    events.push(...page.events);
    after = page.after;
  } while (after);
  return events;
}

/** Plays events to the end. Returns a picture of the last frame, and the page for the comparison. */
async function play(browser, events) {
  const page = await (await browser.newContext({ viewport: SIZE })).newPage();
  await page.goto('http://shop.test/player');
  await page.evaluate(([events, size]) => window.play(events, size), [events.map((event) => event.data), SIZE]);
  await page.waitForTimeout(1500);
  return { page, frame: await page.screenshot() };
}

/** Returns all that is stored, decompressed. */
function stored(folder) {
  const files = fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const texts = files.map((entry) => zlib.gunzipSync(fs.readFileSync(path.join(entry.parentPath ?? entry.path, entry.name))));
  return { chunks: files.length, text: Buffer.concat(texts).toString() };
}

async function check(recorder, keep) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), `replay-${recorder}-`));
  const [sites, running] = await Promise.all([serve(recorder), service(folder)]);
  const browser = await open(sites, running.port);
  try {
    const { visitor, picture } = await record(browser);
    const events = await read(running.port, visitor);
    const { page, frame } = await play(browser, events);
    const difference = (...pictures) =>
      page.evaluate(
        ([one, other, threshold]) => window.difference(one, other, threshold),
        [...pictures.map((png) => png.toString('base64')), THRESHOLD],
      );
    const { different, all } = await difference(picture, frame);
    // The comparison can fail: the page as it was at the start is another picture.
    const first = events.findIndex((event) => event.data.type === 2);
    const start = await play(browser, events.slice(0, Math.max(first + 1, 2)));
    const { different: atStart } = await difference(picture, start.frame);
    if (keep) {
      fs.mkdirSync(keep, { recursive: true });
      fs.writeFileSync(path.join(keep, `${recorder}-recorded.png`), picture);
      fs.writeFileSync(path.join(keep, `${recorder}-played.png`), frame);
    }
    const { chunks, text } = stored(folder);
    const leaked = Object.values(TYPED).filter((typed) => text.includes(typed));
    const kinds = new Set(events.map((event) => event.event_type));
    const isSorted = events.every((event, at) => at === 0 || events[at - 1].timestamp <= event.timestamp);
    const isRight = different <= all * MAX_DIFFERENT && atStart > all * 0.01 && leaked.length === 0 && isSorted && kinds.has('dom') && kinds.has('input');
    console.log(
      `${isRight ? 'ok   ' : 'WRONG'} ${recorder}: ${events.length} events in ${chunks} chunks, ${text.length} bytes; ` +
        `${different} of ${all} pixels differ, ${atStart} from the first frame; typed values stored: ${leaked.length}`,
    );
    return isRight;
  } finally {
    await browser.close();
    running.stop();
  }
}

async function main() {
  const at = process.argv.indexOf('--keep');
  const keep = at > 0 ? process.argv[at + 1] : undefined;
  let isRight = true;
  for (const recorder of RECORDERS) isRight = (await check(recorder, keep)) && isRight;
  return isRight;
}

main().then((isRight) => process.exit(isRight ? 0 : 1), (error) => {
  console.error(error);
  process.exit(1);
});
