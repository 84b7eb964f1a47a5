/** The opened file and what was found in it. Nothing is kept but in this page's memory. */

import { byId, download, element, sentence } from "./elements.js";
import { Refusal, segment, structures } from "./gateway.js";
import { drawLegend, hidden } from "./legend.js";
import { looksLikeNifti } from "./nifti.js";
import { chosen, offer, withdraw } from "./picker.js";
import { PictureView } from "./picture.js";
import { VolumeView } from "./volume.js";

const nameOf = (label) => answer?.structures[label - 1]?.name ?? "";
const tell = (text) => (byId("location").textContent = text);
export const volume = new VolumeView(byId("volume"), tell, nameOf);
const picture = new PictureView(byId("picture-image"), byId("picture-masks"), tell, nameOf);
// kind, as in /v1: what shows it, the catalogue's word for the model, how a label map's file ends
const KINDS = {
  volumes: { view: volume, box: byId("volume"), model: "3d", ending: ".nii.gz" },
  images: { view: picture, box: byId("picture"), model: "2d", ending: ".png" },
};
const catalogues = new Map(); // model -> rows
let opened = null; // {kind, name, file}
let offered = null; // the kind whose structures may be chosen
let answer = null; // {structures, report, labels}
let request = null; // an AbortController while the model is at work

export const isOpen = (kind) => opened?.kind === kind;
export const cancel = () => request?.abort();

/** Opens a file in place of the last. modality: of its structures, where it is known. */
export async function open(file, name, modality = "") {
  cancel();
  close();
  const bytes = new Uint8Array(await file.arrayBuffer());
  const kind = kindOf(bytes);
  if (kind !== offered) withdraw(); // at once: what is typed while the catalogue comes is for this file
  offered = kind;
  show(kind);
  byId("image-facts").textContent = "Opening …";
  try {
    const facts = await KINDS[kind].view.open(bytes);
    opened = { kind, name, file: new Blob([file]) };
    byId("image-facts").textContent = `${name}: ${facts.text}`;
    await offerCatalogue(modality || facts.modality);
  } catch (error) {
    if (!opened) close();
    throw error;
  }
}

/** What a file is, by its first bytes. */
function kindOf(bytes) {
  const starts = (...first) => first.every((byte, index) => bytes[index] === byte);
  if (starts(0x89, 0x50, 0x4e, 0x47) || starts(0xff, 0xd8, 0xff)) return "images";
  if (looksLikeNifti(bytes)) return "volumes";
  throw new Refusal("This is neither a NIfTI volume (.nii, .nii.gz) nor an image (PNG, JPEG). Convert it first");
}

function close() {
  opened = null;
  forget();
  show(null);
  byId("image-facts").textContent = byId("progress-text").textContent = "";
  tell("");
  update();
}

function forget() {
  answer = null;
  byId("found").hidden = true;
}

/** Shows what belongs to volumes or images, or to neither. */
function show(kind) {
  document.body.dataset.kind = kind ?? "";
  for (const [name, { box }] of Object.entries(KINDS)) box.hidden = name !== kind;
  byId("welcome").hidden = kind !== null;
}

export async function offerCatalogue(modality) {
  if (!opened) return;
  const { model } = KINDS[opened.kind];
  if (!catalogues.has(model)) catalogues.set(model, await structures(model));
  offer(catalogues.get(model), modality);
  update();
}

/** Asks the model for the chosen structures of the opened file. */
export async function ask() {
  if (byId("segment").disabled) return;
  const asked = [...chosen.values()];
  const { kind, file } = opened;
  const options = kind === "volumes" ? { intensity: byId("intensity").value } : {};
  const prompts = asked.map((structure) => structure.prompt);
  const started = performance.now();
  const { signal } = (request = new AbortController());
  update();
  showProgress(null);
  try {
    const result = await segment(kind, file, prompts, options, (done) => showProgress(done, asked), signal);
    signal.throwIfAborted(); // another file may have been opened
    await showAnswer({ structures: asked, ...result });
    byId("progress-text").textContent = `Answered in ${((performance.now() - started) / 1000).toFixed(1)} s.`;
  } catch (error) {
    byId("progress-text").textContent = signal.aborted ? "Cancelled." : "";
    throw error;
  } finally {
    request = null;
    update();
  }
}

/** done: {slices_done, slices, prompts_found}, or null before the first slices. A picture is one step, and has none. */
function showProgress(done, asked) {
  const bar = byId("progress");
  if (!done?.slices) {
    bar.removeAttribute("value"); // it moves to and fro
    byId("progress-text").textContent = "The model is at work …";
    return;
  }
  bar.max = done.slices;
  bar.value = done.slices_done;
  const names = asked.filter(({ prompt }) => done.prompts_found.includes(prompt)).map(({ name }) => name);
  const found = names.length ? ` Found: ${names.join(", ")}.` : "";
  byId("progress-text").textContent = `${done.slices_done} of ${done.slices} slices.${found}`;
}

async function showAnswer(newAnswer) {
  const { view } = KINDS[opened.kind];
  forget();
  await view.showMasks(newAnswer.labels);
  answer = newAnswer;
  byId("found").hidden = false;
  drawLegend(answer.structures, answer.report, paint, (label) => view.goTo(label));
  byId("warnings").replaceChildren(...warnings().map((warning) => element("li", {}, sentence(warning))));
  byId("networks").textContent = sentence(answer.report.networks?.notice ?? "");
  const sizes = answer.report.prompts.map((prompt) => prompt.voxels ?? 0);
  if (Math.max(...sizes)) view.goTo(sizes.indexOf(Math.max(...sizes)) + 1);
}

function warnings() {
  const cut = answer.structures.filter((_, index) => answer.report.prompts[index].truncated);
  const tell = ({ name }) => `longer than the model reads, so its end is left out: ${name}`;
  return [...answer.report.warnings, ...cut.map(tell)];
}

/** Draws the masks as legend and opacity say. */
export function paint() {
  if (!answer) return;
  const colours = answer.structures.map((structure) => structure.rgb);
  KINDS[opened.kind].view.paint(colours, hidden, byId("opacity").value / 100);
}

/** Buttons as they may be used now. */
export function update() {
  byId("segment").disabled = !opened || !chosen.size || request !== null;
  byId("segment").textContent = ["Segment", "Segment 1 structure"][chosen.size] ?? `Segment ${chosen.size} structures`;
  byId("cancel").hidden = byId("progress").hidden = request === null;
}

const baseName = () => opened.name.replace(/\.(nii\.gz|nii|png|jpe?g)$/i, "");

export function downloadLabels() {
  download(`${baseName()}_labels${KINDS[opened.kind].ending}`, answer.labels);
}

export function downloadReport() {
  download(`${baseName()}_report.json`, JSON.stringify(answer.report, null, 2));
}
