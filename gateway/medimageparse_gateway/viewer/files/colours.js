/** Colours [r, g, b], 0 to 255, of what is not in the catalogue. */

// apart from one another also for colour-blind eyes (after Okabe and Ito), bright on grey
const PALETTE = [
  [86, 180, 233],
  [230, 159, 0],
  [0, 178, 132],
  [240, 228, 66],
  [213, 94, 0],
  [204, 121, 167],
  [120, 130, 255],
  [164, 222, 108],
];

/** The first colour of the palette that none of `used` has; past its end, one of another hue each time. */
export function freeColour(used) {
  const taken = new Set(used.map(String));
  const free = PALETTE.find((rgb) => !taken.has(String(rgb)));
  return free ?? hue(used.length * 137.508); // the golden angle: neighbours are far apart
}

function hue(degrees) {
  const channel = (shift) => {
    const k = (shift + degrees / 30) % 12;
    return Math.round(255 * (0.6 - 0.3 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}
