/** The viewer: what the user's clicks, drops and keys do. */

import { byId, element } from "./elements.js";
import { Refusal, useKey } from "./gateway.js";
import { listenToKeys } from "./keyboard.js";
import { whenChosen } from "./picker.js";
import * as session from "./session.js";
import { WINDOWS } from "./volume.js";

const VIEWS = ["planes", "axial", "coronal", "sagittal", "render"];
const ARROWS = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }; // right, up

/** Does what a user asked for; what goes wrong becomes a sentence. */
async function attempt(work) {
  const box = byId("error");
  box.hidden = true;
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    box.textContent = error instanceof Refusal ? error.message : "The page failed. Reload it and try again.";
    box.hidden = false;
    box.scrollIntoView({ block: "nearest" });
    if (error.status === 401) byId("key-dialog").showModal();
  }
}

function open(file, name, modality) {
  return attempt(async () => {
    await session.open(file, name, modality);
    if (session.isOpen("volumes")) offerViews();
  });
}

function openPhantom(address, name, modality) {
  return attempt(async () => {
    const response = await fetch(new URL(address, import.meta.url)).catch(() => ({ ok: false }));
    if (!response.ok) throw new Refusal("The gateway does not give the phantom. Check that it runs");
    await open(await response.blob(), name, modality);
  });
}

function offerViews() {
  const names = session.volume.isCt ? [...Object.keys(WINDOWS), "Automatic"] : ["Automatic"];
  byId("window").replaceChildren(...names.map((name) => element("option", {}, name)));
  byId("window-label").hidden = !session.volume.isCt;
  setView(currentView());
}

const currentView = () => document.querySelector("[name=view]:checked").value;

function setView(name) {
  document.querySelector(`[name=view][value=${name}]`).checked = true;
  if (session.isOpen("volumes")) session.volume.setView(name);
}

function nextWindow() {
  if (!session.isOpen("volumes")) return;
  const select = byId("window");
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  session.volume.setWindow(select.value);
}

function changeOpacity(by) {
  byId("opacity").value = Number(byId("opacity").value) + by;
  session.paint();
}

function takeKey() {
  useKey(byId("key").value);
  byId("key").value = "";
  byId("key-dialog").close();
  attempt(() => session.offerCatalogue(byId("modality").value));
}

function onClick(id, action) {
  byId(id).addEventListener("click", action);
}

onClick("open-file", () => byId("file").click());
onClick("phantom-ct", () => openPhantom("phantom.nii.gz", "Phantom CT", "CT"));
onClick("phantom-xray", () => openPhantom("phantom.png", "Phantom X-ray", "X-ray"));
onClick("segment", () => attempt(session.ask));
onClick("cancel", session.cancel);
onClick("download-labels", session.downloadLabels);
onClick("download-report", session.downloadReport);
onClick("open-key", () => byId("key-dialog").showModal());
onClick("use-key", takeKey);
onClick("open-keyboard", () => byId("keyboard-dialog").showModal());
onClick("close-keyboard", () => byId("keyboard-dialog").close());
byId("key").addEventListener("keydown", (event) => event.key === "Enter" && takeKey());
byId("views").addEventListener("change", () => setView(currentView()));
byId("window").addEventListener("change", ({ target }) => session.volume.setWindow(target.value));
byId("opacity").addEventListener("input", session.paint);
byId("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // the same file may be opened again
  if (file) open(file, file.name);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging"); // out of the window
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const [file] = event.dataTransfer.files;
  if (file) open(file, file.name);
});
whenChosen(session.update);
listenToKeys([
  [["o"], "Open a file", () => byId("file").click()],
  [["/"], "Search structures", () => byId("search").focus()],
  [["Ctrl+Enter"], "Segment", () => attempt(session.ask)],
  [["Escape"], "Cancel", session.cancel],
  [["1", "2", "3", "4", "5"], "Planes, axial, coronal, sagittal, 3D", (key) => setView(VIEWS[key - 1])],
  [["ArrowUp", "ArrowDown"], "Through the slices", step],
  [["ArrowLeft", "ArrowRight"], "Turn, in 3D", step],
  [["w"], "Next window", nextWindow],
  [["h"], "Hide or show all masks", () => byId("found").hidden || byId("show-all").click()],
  [["-", "+"], "Opacity", (key) => changeOpacity(key === "+" ? 10 : -10)],
  [["?"], "This list", () => byId("keyboard-dialog").showModal()],
]);

function step(key) {
  if (session.isOpen("volumes")) session.volume.step(currentView(), ...ARROWS[key]);
}
