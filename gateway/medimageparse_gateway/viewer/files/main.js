/** The viewer: a file is opened, structures are chosen, masks are shown. Nothing is kept but in this page's memory. */

import { byId, download, element } from "./elements.js";
import { Refusal, segment, structures, useKey } from "./gateway.js";
import { listenToKeys } from "./keyboard.js";
import { drawLegend, hidden } from "./legend.js";
import { chosen, offer, whenChosen } from "./picker.js";
import { PictureView } from "./picture.js";
import { VolumeView, WINDOWS } from "./volume.js";

const nameOf = (label) => answer?.structures[label - 1]?.name ?? "";
const tell = (text) => (byId("location").textContent = text);
// kind, as in /v1 -> what shows it, the catalogue's word for the model, how a label map's file ends
const KINDS = {
  volumes: { view: new VolumeView(byId("volume"), tell, nameOf), element: byId("volume"), model: "3d", ending: ".nii.gz" },
  images: {
    view: new PictureView(byId("picture-image"), byId("picture-masks"), tell, nameOf),
    element: byId("picture"),
    model: "2d",
    ending: ".png",
  },
};
const catalogues = new Map(); // model -> rows
let opened = null; // {kind, name, file}
let answer = null; // {structures, report, labels}
let request = null; // an AbortController while the model is at work

/** Runs what a user asked for; what goes wrong becomes a sentence. */
async function attempt(work) {
  byId("error").hidden = true;
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("error").textContent = error instanceof Refusal ? error.message : "The page failed. Reload it and try again.";
    byId("error").hidden = false;
    byId("error").scrollIntoView({ block: "nearest" });
    if (error.status === 401) byId("key-dialog").showModal();
  }
}

/** What a file is, by its first bytes. */
function kindOf(bytes) {
  const starts = (...first) => first.every((byte, index) => bytes[index] === byte);
  if (starts(0x89, 0x50, 0x4e, 0x47) || starts(0xff, 0xd8, 0xff)) return "images";
  const isNifti = [344, 4].some((at) => /^n[+]?[12]/.test(String.fromCharCode(...bytes.subarray(at, at + 3))));
  if (starts(0x1f, 0x8b) || isNifti) return "volumes";
  throw new Refusal("This is neither a NIfTI volume (.nii, .nii.gz) nor an image (PNG, JPEG). Convert it to one of these");
}

async function open(file, name, modality = "") {
  request?.abort();
  close();
  const bytes = new Uint8Array(await file.arrayBuffer());
  const kind = kindOf(bytes);
  byId("image-facts").textContent = "Opening …";
  const facts = await KINDS[kind].view.open(bytes).finally(() => (byId("image-facts").textContent = ""));
  opened = { kind, name, file: new Blob([file]) };
  byId("image-facts").textContent = `${name}: ${facts.text}`;
  byId("welcome").hidden = true;
  KINDS[kind].element.hidden = false;
  document.body.dataset.kind = kind;
  if (kind === "volumes") showVolumeControls();
  await offerCatalogue(modality || facts.modality);
}

function close() {
  opened = answer = null;
  for (const { element } of Object.values(KINDS)) element.hidden = true;
  byId("found").hidden = true;
  byId("welcome").hidden = false;
  byId("image-facts").textContent = byId("progress-text").textContent = "";
  tell("");
  delete document.body.dataset.kind;
  updateAsk();
}

function showVolumeControls() {
  const volume = KINDS.volumes.view;
  const names = volume.isCt ? [...Object.keys(WINDOWS), "Automatic"] : ["Automatic"];
  byId("window").replaceChildren(...names.map((name) => element("option", {}, name)));
  byId("window-label").hidden = !volume.isCt;
  volume.setView(currentView());
}

async function offerCatalogue(modality) {
  const { model } = KINDS[opened.kind];
  if (!catalogues.has(model)) catalogues.set(model, await structures(model));
  offer(catalogues.get(model), modality);
}

async function openPhantom(file, name, modality) {
  const response = await fetch(new URL(file, import.meta.url));
  if (!response.ok) throw new Refusal("The phantom cannot be fetched from the gateway");
  await open(await response.blob(), name, modality);
}

/** Asks for the chosen structures of the opened file. */
async function ask() {
  if (byId("segment").disabled) return;
  const asked = [...chosen.values()];
  const { kind, file } = opened;
  const options = kind === "volumes" ? { intensity: byId("intensity").value } : {};
  const started = performance.now();
  request = new AbortController();
  updateAsk();
  showProgress(null);
  try {
    const prompts = asked.map((structure) => structure.prompt);
    const result = await segment(kind, file, prompts, options, (done) => showProgress(done, asked), request.signal);
    await showAnswer({ structures: asked, ...result });
    byId("progress-text").textContent = `Answered in ${((performance.now() - started) / 1000).toFixed(1)} s.`;
  } catch (error) {
    byId("progress-text").textContent = error.name === "AbortError" ? "Cancelled." : "";
    throw error;
  } finally {
    request = null;
    updateAsk();
  }
}

function showProgress(done, asked) {
  const bar = byId("progress");
  if (!done) {
    bar.removeAttribute("value"); // it moves to and fro
    byId("progress-text").textContent = "The model has the image …";
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
  await view.showMasks(newAnswer.labels.slice());
  answer = newAnswer;
  byId("found").hidden = false;
  drawLegend(answer.structures, answer.report, paint, (label) => view.goTo(label));
  byId("warnings").replaceChildren(...answer.report.warnings.map((warning) => element("li", {}, warning)));
  byId("networks").textContent = answer.report.networks.notice ?? "";
  const sizes = answer.report.prompts.map((prompt) => prompt.voxels ?? 0);
  if (Math.max(...sizes)) view.goTo(sizes.indexOf(Math.max(...sizes)) + 1);
}

function paint() {
  if (!answer) return;
  const colours = answer.structures.map((structure) => structure.rgb);
  KINDS[opened.kind].view.paint(colours, hidden, byId("opacity").value / 100);
}

function updateAsk() {
  byId("segment").disabled = !opened || !chosen.size || request !== null;
  const n = chosen.size;
  byId("segment").textContent = n ? `Segment ${n} structure${n > 1 ? "s" : ""}` : "Segment";
  byId("cancel").hidden = byId("progress").hidden = request === null;
}

const currentView = () => document.querySelector("[name=view]:checked").value;
const baseName = () => opened.name.replace(/\.(nii\.gz|nii|png|jpe?g)$/i, "");

function setView(name) {
  document.querySelector(`[name=view][value=${name}]`).checked = true;
  if (opened?.kind === "volumes") KINDS.volumes.view.setView(name);
}

function nextWindow() {
  const select = byId("window");
  if (opened?.kind !== "volumes") return;
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  KINDS.volumes.view.setWindow(select.value);
}

function changeOpacity(by) {
  byId("opacity").value = Number(byId("opacity").value) + by;
  paint();
}

function step(key) {
  const [right, up] = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[key];
  if (opened?.kind === "volumes") KINDS.volumes.view.step(currentView(), right, up);
}

function takeKey() {
  useKey(byId("key").value);
  byId("key-dialog").close();
  if (opened) attempt(() => offerCatalogue(byId("modality").value));
}

byId("open-file").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // the same file may be opened again
  if (file) attempt(() => open(file, file.name));
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file) attempt(() => open(file, file.name));
});
byId("phantom-ct").addEventListener("click", () => attempt(() => openPhantom("phantom.nii.gz", "Phantom CT", "CT")));
byId("phantom-xray").addEventListener("click", () => attempt(() => openPhantom("phantom.png", "Phantom X-ray", "X-ray")));
byId("segment").addEventListener("click", () => attempt(ask));
byId("cancel").addEventListener("click", () => request?.abort());
byId("views").addEventListener("change", () => setView(currentView()));
byId("window").addEventListener("change", ({ target }) => KINDS.volumes.view.setWindow(target.value));
byId("opacity").addEventListener("input", paint);
byId("download-labels").addEventListener("click", () =>
  download(`${baseName()}_labels${KINDS[opened.kind].ending}`, answer.labels),
);
byId("download-report").addEventListener("click", () =>
  download(`${baseName()}_report.json`, JSON.stringify(answer.report, null, 2)),
);
byId("open-key").addEventListener("click", () => byId("key-dialog").showModal());
byId("use-key").addEventListener("click", takeKey);
byId("key").addEventListener("keydown", (event) => event.key === "Enter" && takeKey());
byId("open-keyboard").addEventListener("click", () => byId("keyboard-dialog").showModal());
byId("close-keyboard").addEventListener("click", () => byId("keyboard-dialog").close());
whenChosen(updateAsk);
listenToKeys([
  [["o"], "Open a file", () => byId("file").click()],
  [["/"], "Search structures", () => byId("search").focus()],
  [["Ctrl+Enter"], "Segment", () => attempt(ask)],
  [["Escape"], "Cancel", () => request?.abort()],
  [["1", "2", "3", "4", "5"], "Planes, axial, coronal, sagittal, 3D", (key) => setView(VIEWS[key - 1])],
  [["ArrowUp", "ArrowDown"], "Next slice; in 3D turn", step],
  [["ArrowLeft", "ArrowRight"], "In 3D turn", step],
  [["w"], "Next window", nextWindow],
  [["h"], "Hide or show all masks", () => answer && byId("show-all").click()],
  [["-", "+"], "Opacity", (key) => changeOpacity(key === "+" ? 10 : -10)],
  [["?"], "This list", () => byId("keyboard-dialog").showModal()],
]);
const VIEWS = ["planes", "axial", "coronal", "sagittal", "render"];
