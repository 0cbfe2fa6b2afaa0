/**
 * Reads the feed of a running service, and hands on what comes; returns the connection. The browser connects again by itself and names the last message
 * that it got, so that nothing is missing.
 */
export function listen(host) {
  const source = new EventSource('/_page/feed');
  source.addEventListener('message', ({ data }) => host.take(JSON.parse(data)));
  source.addEventListener('clock', ({ data }) => host.setTime(JSON.parse(data)));
  source.addEventListener('reset', () => host.reset());
  source.addEventListener('open', () => host.setState('live'));
  source.addEventListener('error', () => host.setState('reconnecting'));
  return source;
}

/** Returns the data that stand in the document. */
export const embeddedData = () => JSON.parse(document.getElementById('data').textContent);
