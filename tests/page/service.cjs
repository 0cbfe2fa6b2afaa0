// `local serve` on a port of its own.
const { spawn } = require('node:child_process');

/** Starts a service, hands it to a function, and ends it. */
async function withService(options, use) {
  const service = await start(options);
  try {
    return await use(service);
  } finally {
    await service.stop();
  }
}

async function start(options, port = 0) {
  const process_ = spawn(process.env.LOCAL, ['serve', '--port', String(port), '--dynamodb-port', '0', ...options],
    { stdio: ['ignore', 'ignore', 'pipe'] });
  const url = await new Promise((done, fail) => {
    let log = '';
    process_.stderr.on('data', (data) => {
      log += data;
      const found = /HTTP API +(http:\/\/[\d.:]+)\//.exec(log);
      if (found) done(found[1]);
    });
    process_.on('exit', () => fail(new Error(`the service did not start: ${log}`)));
  });
  const stop = () => new Promise((done) => {
    process_.removeAllListeners('exit');
    process_.on('exit', done);
    process_.kill();
  });
  const post = async (events, path = '/events') => {
    const answer = await fetch(url + path, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: typeof events === 'string' ? events : JSON.stringify(events),
    });
    return answer.json();
  };
  return { url, port: Number(new URL(url).port), post, stop };
}

module.exports = { start, withService };
