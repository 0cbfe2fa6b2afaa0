// Plays events in rrweb-player to their end.
import Player from 'rrweb-player';

window.play = (events, { width, height }) => {
  const player = new Player({
    target: document.body,
    props: { events, width, height, autoPlay: false, showController: false, mouseTail: false, skipInactive: false },
  });
  const { totalTime } = player.getMetaData();
  player.goto(totalTime, false);
  return totalTime;
};

/** Returns how many pixels of two pictures differ in a channel by more than `threshold`, and how many there are. */
window.difference = async (one, other, threshold) => {
  const pixels = async (png) => {
    const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  };
  const [a, b] = [await pixels(one), await pixels(other)];
  if (a.width !== b.width || a.height !== b.height) return { different: a.width * a.height, all: a.width * a.height };
  let different = 0;
  for (let at = 0; at < a.data.length; at += 4) {
    const differs = [0, 1, 2].some((channel) => Math.abs(a.data[at + channel] - b.data[at + channel]) > threshold);
    different += differs ? 1 : 0;
  }
  return { different, all: a.width * a.height };
};
