// What every server's driver sends: a visit with a login in the middle, and an order an hour before it.

// The driver's arguments: the address to send to, and a name that no other visit has.
const [collector, visit] = process.argv.slice(2);

module.exports = {
  collector,
  device: `device-${visit}`,
  user: `user-${visit}`,
  entry: 'https://shop.test/?utm_source=news&utm_medium=mail&utm_campaign=spring',
  account: 'https://shop.test/account',
  referrer: 'https://www.search.test/',
  order: { total: 12.5, items: [{ sku: 'a1', n: 2 }], gift: false },
  /** Returns a time before the visit. */
  anHourAgo: () => new Date(Date.now() - 3_600_000),
  /** Lets some time pass: by default a moment, as between two steps of a person. */
  pause: (ms = 20) => new Promise((done) => setTimeout(done, ms)),
};
