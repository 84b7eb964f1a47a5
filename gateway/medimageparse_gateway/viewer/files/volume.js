/** A volume with its masks, drawn by NiiVue: three planes and 3D. */

import { Refusal } from "./gateway.js";
import { unpack } from "./nifti.js";

const VIEWS = {
  planes: "sliceTypeMultiplanar",
  axial: "sliceTypeAxial",
  coronal: "sliceTypeCoronal",
  sagittal: "sliceTypeSagittal",
  render: "sliceTypeRender",
};
const OPTIONS = {
  logLevel: "silent",
  dragAndDropEnabled: false, // the page takes dropped files
  isRadiologicalConvention: true,
  backColor: [0.031, 0.043, 0.059, 1],
  crosshairColor: [0.55, 0.75, 0.8, 0.8],
  crosshairWidth: 0.3,
  crosshairWidthUnit: "percent",
  showAllOrientationMarkers: true,
  fontColor: [0.75, 0.82, 0.88, 1],
  selectionBoxColor: [1, 1, 1, 0.5],
  loadingText: "",
  tileMargin: 8,
  multiplanarLayout: 2, // a grid: the tiles stay where they are when the legend comes
  viewModeHotKey: "", // the page has keys of its own
  clipPlaneHotKey: "",
  cycleClipPlaneHotKey: "",
};
const AIR_HU = -500; // no other modality has values this low

/** Windows in Hounsfield units: name -> [width, level]. */
export const WINDOWS = {
  "Soft tissue": [400, 40],
  Lung: [1500, -600],
  Bone: [1800, 400],
  Brain: [80, 40],
  Liver: [150, 30],
};

export class VolumeView {
  /** onLocation gets a text for each place of the crosshair; nameOf: label -> name. */
  constructor(canvas, onLocation, nameOf) {
    this.canvas = canvas;
    this.onLocation = onLocation;
    this.nameOf = nameOf;
  }

  /** Shows the bytes of a NIfTI file. Gives its facts: {text, modality}. */
  async open(bytes) {
    const unpacked = await unpack(bytes);
    await this.#start();
    for (const volume of [...this.niivue.volumes]) this.niivue.removeVolume(volume);
    await this.niivue.loadFromArrayBuffer(unpacked.buffer, "image.nii");
    const volume = this.niivue.volumes[0];
    this.isCt = volume.global_min <= AIR_HU;
    this.setWindow(this.isCt ? "Soft tissue" : "Automatic");
    const spacing = volume.hdr.pixDims.slice(1, 4).map((mm) => Number(mm.toPrecision(3)));
    this.niivue.opts.crosshairGap = 0.04 * volume.hdr.dims[1] * volume.hdr.pixDims[1]; // mm: what it points at is seen
    const text = `${volume.hdr.dims.slice(1, 4).join(" × ")} voxels of ${spacing.join(" × ")} mm`;
    return { text, modality: this.isCt ? "CT" : "MR" };
  }

  async #start() {
    if (this.niivue) return;
    const niivue = new window.niivue.Niivue({ ...OPTIONS, multiplanarShowRender: window.niivue.SHOW_RENDER.ALWAYS });
    niivue.onLocationChange = (place) => this.#tell(place);
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Refusal("This browser has WebGL 2 switched off and cannot draw volumes. Switch it on");
    }
    await niivue.attachToCanvas(this.canvas);
    this.niivue = niivue;
  }

  #tell(place) {
    const [x, y, z] = Array.from(place.mm, (mm) => mm.toFixed(0));
    const [grey, label] = place.values.map((entry) => entry.value);
    const parts = [`${x}, ${y}, ${z} mm`, `${Number(grey.toFixed(2))}${this.isCt ? " HU" : ""}`];
    if (label) parts.push(this.nameOf(Math.round(label)));
    this.onLocation(parts.join("   ·   "));
  }

  /** Shows a label map, the bytes of a NIfTI file of the same geometry, in place of the last. */
  async showMasks(bytes) {
    for (const volume of this.niivue.volumes.slice(1)) this.niivue.removeVolume(volume);
    const unpacked = await unpack(bytes);
    await this.niivue.loadFromArrayBuffer(unpacked.buffer, "labels.nii");
  }

  /** colours: of label 1, 2, ... as [r, g, b]; hidden: labels; opacity: 0 to 1. */
  paint(colours, hidden, opacity) {
    const labels = this.niivue?.volumes[1];
    if (!labels) return;
    const all = [[0, 0, 0], ...colours];
    const [R, G, B] = [0, 1, 2].map((channel) => all.map((rgb) => rgb[channel]));
    const A = all.map((_, label) => (label === 0 || hidden.has(label) ? 0 : 255));
    labels.setColormapLabel({ R, G, B, A, I: all.map((_, label) => label), labels: all.map(() => "") });
    this.niivue.setOpacity(1, opacity);
    this.niivue.updateGLVolume();
  }

  /** Moves the crosshair into a label. */
  goTo(label) {
    const { hdr, img } = this.niivue.volumes[1];
    const voxel = innermost(img, hdr.dims, label);
    if (!voxel) return;
    const mm = hdr.affine.slice(0, 3).map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
    this.niivue.scene.crosshairPos = this.niivue.mm2frac(mm, 0, true);
    this.niivue.drawScene();
    this.niivue.createOnLocationChange();
  }

  setView(name) {
    this.niivue.setSliceType(this.niivue[VIEWS[name]]);
  }

  /** One of WINDOWS, or "Automatic": nearly all of the values. */
  setWindow(name) {
    const volume = this.niivue.volumes[0];
    const [width, level] = WINDOWS[name] ?? [];
    volume.cal_min = width ? level - width / 2 : volume.robust_min;
    volume.cal_max = width ? level + width / 2 : volume.robust_max;
    this.niivue.updateGLVolume();
  }

  /** Through the slices, or about the body in 3D. */
  step(view, right, up) {
    const { scene } = this.niivue;
    const turned = [scene.renderAzimuth + 5 * right, scene.renderElevation + 5 * up]; // degrees
    if (view === "render") this.niivue.setRenderAzimuthElevation(...turned);
    else if (view === "sagittal") this.niivue.moveCrosshairInVox(up, 0, 0);
    else if (view === "coronal") this.niivue.moveCrosshairInVox(0, up, 0);
    else this.niivue.moveCrosshairInVox(0, 0, up);
  }
}

/** The voxel [x, y, z] of a label that is next to the middle of all its voxels; null where there is none. */
function innermost(labels, dims, label) {
  const middle = [0, 0, 0];
  let count = 0;
  visit(labels, dims, label, (...voxel) => {
    count += 1;
    voxel.forEach((at, axis) => (middle[axis] += (at - middle[axis]) / count));
  });
  let [best, least] = [null, Infinity];
  visit(labels, dims, label, (x, y, z) => {
    const distance = (x - middle[0]) ** 2 + (y - middle[1]) ** 2 + (z - middle[2]) ** 2;
    if (distance < least) [best, least] = [[x, y, z], distance];
  });
  return best;
}

function visit(labels, [, nx, ny, nz], label, see) {
  let index = 0;
  for (let z = 0; z < nz; z += 1) {
    for (let y = 0; y < ny; y += 1) {
      for (let x = 0; x < nx; x += 1, index += 1) if (labels[index] === label) see(x, y, z);
    }
  }
}
