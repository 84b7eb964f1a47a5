/**
 * The labels of a label map. A canvas would give the palette's colours, and some browsers alter what is read back from
 * one, so the file is read here: PNG of 8 bits a pixel, one channel, not interlaced, as the gateway writes them.
 */

const [SIGNATURE, WIDTH, HEIGHT] = [8, 16, 20]; // bytes, and where the header has the size

/** Uint8Array, row by row. */
export async function readLabels(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [width, height] = [view.getUint32(WIDTH), view.getUint32(HEIGHT)];
  const packed = [];
  for (let at = SIGNATURE; at < bytes.length; at += 12 + view.getUint32(at)) {
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (name === "IDAT") packed.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));
  }
  const stream = new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"));
  return unfilter(new Uint8Array(await new Response(stream).arrayBuffer()), width, height);
}

/** What each filter of a row subtracted from a pixel, by its neighbours to the left, above, and above to the left. */
const PREDICTIONS = [
  () => 0,
  (left) => left,
  (left, above) => above,
  (left, above) => (left + above) >> 1,
  paeth,
];

/** Each row begins with the number of its filter. */
function unfilter(rows, width, height) {
  const labels = new Uint8Array(width * height);
  for (let y = 0; y < height; y += 1) {
    const predict = PREDICTIONS[rows[y * (width + 1)]];
    for (let x = 0; x < width; x += 1) {
      const at = y * width + x;
      const left = x ? labels[at - 1] : 0;
      const above = y ? labels[at - width] : 0;
      const corner = x && y ? labels[at - width - 1] : 0;
      labels[at] = rows[y * (width + 1) + 1 + x] + predict(left, above, corner); // modulo 256, as bytes are
    }
  }
  return labels;
}

/** Of the three neighbours the one next to left + above - corner; of equals the first. */
function paeth(left, above, corner) {
  const toLeft = Math.abs(above - corner);
  const toAbove = Math.abs(left - corner);
  const toCorner = Math.abs(left + above - 2 * corner);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}
