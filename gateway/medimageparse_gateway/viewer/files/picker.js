/** What is asked for: structures of the catalogue, and sentences that the user types. */

import { freeColour } from "./colours.js";
import { byId, element, swatch } from "./elements.js";

const search = byId("search");
const modality = byId("modality");
const preset = byId("preset");

/** Chosen structures in their order: prompt -> {name, prompt, rgb}. */
export const chosen = new Map();
let rows = [];
let onChange = () => {};

export function whenChosen(listener) {
  onChange = listener;
}

/** Takes back what was offered, chosen and typed: it was for another model. */
export function withdraw() {
  chosen.clear();
  rows = [];
  search.value = "";
  draw();
}

/** Shows the rows of a model, at first those of a modality ("" for all). What is chosen and typed stays. */
export function offer(newRows, firstModality) {
  rows = newRows;
  const modalities = [...new Set(rows.map((row) => row.modalities))];
  modality.replaceChildren(option("", "All modalities"), ...modalities.map((name) => option(name, name)));
  modality.value = modalities.includes(firstModality) ? firstModality : "";
  offerPresets();
  draw();
}

function option(value, label) {
  return element("option", { value }, label);
}

function offerPresets() {
  const labels = new Map();
  for (const row of ofModality()) for (const name of row.presets) labels.set(name, presetLabel(name, row));
  preset.replaceChildren(option("", "All structures"), ...[...labels].map(([name, label]) => option(name, label)));
}

/** "ct-head-neck" -> "CT: head neck". */
function presetLabel(name, row) {
  const words = name.split("-").slice(1).join(" ");
  return `${row.modalities}: ${words || "all"}`;
}

function ofModality() {
  return rows.filter((row) => !modality.value || row.modalities === modality.value);
}

function shown() {
  const wanted = search.value.trim().toLowerCase();
  const matches = (text) => text.toLowerCase().includes(wanted);
  const ofPreset = ofModality().filter((row) => !preset.value || row.presets.includes(preset.value));
  return ofPreset.filter((row) => [row.name, row.prompt, ...row.aliases].some(matches));
}

function choose(row) {
  chosen.set(row.prompt, { name: row.name, prompt: row.prompt, rgb: row.rgb });
}

/** Adds the text of the search field: a structure of that name, or a sentence as it is typed. */
function addTyped() {
  const prompt = search.value.trim().replace(/\s+/g, " ");
  if (!prompt) return;
  const isNamed = (row) => [row.name, row.prompt].some((text) => text.toLowerCase() === prompt.toLowerCase());
  const row = ofModality().find(isNamed);
  const used = [...chosen.values()].map((structure) => structure.rgb);
  if (row) choose(row);
  else if (!chosen.has(prompt)) chosen.set(prompt, { name: prompt, prompt, rgb: freeColour(used) });
  search.value = "";
  draw();
}

function draw() {
  drawChosen();
  drawCatalogue();
  onChange();
}

function drawChosen() {
  const remove = (prompt) => () => {
    chosen.delete(prompt);
    draw();
    search.focus();
  };
  const chips = [...chosen.values()].map(({ name, prompt, rgb }) =>
    element(
      "li",
      { title: prompt },
      swatch(rgb),
      element("span", {}, name),
      element("button", { type: "button", "aria-label": `Remove ${name}`, click: remove(prompt) }, "×"),
    ),
  );
  if (chips.length > 1) {
    const clear = () => {
      chosen.clear();
      draw();
    };
    chips.push(element("li", { class: "bare" }, element("button", { type: "button", click: clear }, "Remove all")));
  }
  byId("chosen").replaceChildren(...chips);
}

function drawCatalogue() {
  const listed = shown();
  const parts = [];
  if (search.value.trim()) {
    const words = `Ask for “${search.value.trim()}”`;
    parts.push(element("button", { type: "button", class: "wide", click: addTyped }, words));
  } else if (preset.value) {
    const chooseAll = () => {
      listed.forEach(choose);
      draw();
    };
    parts.push(element("button", { type: "button", class: "wide", click: chooseAll }, `Choose all ${listed.length}`));
  }
  for (const region of new Set(listed.map((row) => row.region))) {
    parts.push(element("h3", {}, region.replaceAll("_", " ")));
    parts.push(...listed.filter((row) => row.region === region).map(drawRow));
  }
  byId("catalogue").replaceChildren(...parts);
}

function drawRow(row) {
  const toggle = (event) => {
    if (event.target.checked) choose(row);
    else chosen.delete(row.prompt);
    drawChosen();
    onChange();
  };
  const box = element("input", { type: "checkbox", checked: chosen.has(row.prompt), change: toggle });
  const detail = [!modality.value && row.modalities, row.sequence].filter(Boolean).join(" ");
  const label = element("label", { title: row.prompt }, box, swatch(row.rgb), element("span", {}, row.name));
  if (detail) label.append(element("small", {}, detail));
  return label;
}

search.addEventListener("input", drawCatalogue);
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) addTyped();
});
modality.addEventListener("change", () => {
  offerPresets();
  draw();
});
preset.addEventListener("change", draw);
