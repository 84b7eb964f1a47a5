/** NIfTI files: NiiVue draws what it gets of a file that is cut off, so they are looked at before. */

import { Refusal } from "./gateway.js";

const GZIP = [0x1f, 0x8b];
const NO_NIFTI = "This file cannot be read as a NIfTI volume. Save it again as .nii.gz";
// size of the header -> where it says dimensions, bits of a voxel and where the voxels begin
const VERSIONS = {
  348: {
    dimension: (view, axis, isLittle) => view.getInt16(40 + 2 * axis, isLittle),
    bits: (view, isLittle) => view.getInt16(72, isLittle),
    offset: (view, isLittle) => view.getFloat32(108, isLittle),
  },
  540: {
    dimension: (view, axis, isLittle) => Number(view.getBigInt64(16 + 8 * axis, isLittle)),
    bits: (view, isLittle) => view.getInt16(14, isLittle),
    offset: (view, isLittle) => Number(view.getBigInt64(168, isLittle)),
  },
};

/** Whether bytes begin as a NIfTI file may, packed by gzip or not. */
export function looksLikeNifti(bytes) {
  return GZIP.every((byte, index) => bytes[index] === byte) || headerOf(bytes) !== null;
}

/** The bytes of a NIfTI file without gzip. Refusal for what is none, or is cut off. */
export async function unpack(bytes) {
  const raw = bytes[0] === GZIP[0] ? await gunzip(bytes) : bytes;
  const header = headerOf(raw);
  if (!header || raw.length < header.length) throw new Refusal(NO_NIFTI);
  return raw;
}

async function gunzip(bytes) {
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new Refusal(NO_NIFTI);
  }
}

/** {length}: how long the file has to be; null where there is no header. */
function headerOf(bytes) {
  if (bytes.length < 348) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isLittle = view.getInt32(0, true) in VERSIONS;
  const version = VERSIONS[view.getInt32(0, isLittle)];
  if (!version) return null;
  let voxels = 1;
  for (let axis = 1; axis <= Math.min(7, version.dimension(view, 0, isLittle)); axis += 1) {
    voxels *= Math.max(1, version.dimension(view, axis, isLittle));
  }
  return { length: version.offset(view, isLittle) + (voxels * version.bits(view, isLittle)) / 8 };
}
