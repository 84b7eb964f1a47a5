/** An image with its masks, on two canvases of the image's own pixels. */

import { Refusal } from "./gateway.js";
import { readLabels } from "./png.js";

export class PictureView {
  constructor(image, masks, onLocation, nameOf) {
    this.image = image;
    this.masks = masks;
    masks.addEventListener("pointermove", (event) => {
      const label = this.labels?.[this.#indexOf(event)];
      onLocation(label ? nameOf(label) : "");
    });
  }

  /** Shows the bytes of a PNG or JPEG, upright as EXIF says. Gives its facts: {text, modality}. */
  async open(bytes) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(new Blob([bytes]));
    } catch {
      throw new Refusal("This file cannot be read as an image. Save it again as PNG");
    }
    for (const canvas of [this.image, this.masks]) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    this.image.getContext("2d").drawImage(bitmap, 0, 0);
    this.labels = null;
    return { text: `${bitmap.width} × ${bitmap.height} pixels`, modality: "" };
  }

  /** Shows a label map, the bytes of an 8-bit PNG of the same size. */
  async showMasks(bytes) {
    this.labels = await readLabels(bytes);
  }

  paint(colours, hidden, opacity) {
    const rgba = [0, ...colours.map(([r, g, b]) => ((r << 24) | (g << 16) | (b << 8) | 255) >>> 0)];
    const context = this.masks.getContext("2d");
    const picture = context.createImageData(this.masks.width, this.masks.height);
    const pixels = new DataView(picture.data.buffer);
    this.labels?.forEach((label, index) => {
      if (label && !hidden.has(label)) pixels.setUint32(4 * index, rgba[label]);
    });
    context.putImageData(picture, 0, 0);
    this.masks.style.opacity = opacity;
  }

  #indexOf(event) {
    const box = this.masks.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.masks.width);
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.masks.height);
    return row * this.masks.width + column;
  }

  goTo() {} // all of an image is in sight
}
