/** The table of what was found: show and hide, name, colour, size, score. */

import { byId, element, swatch } from "./elements.js";

const showAll = byId("show-all");
const ABSENT = [90, 98, 107];

/** Labels that are not shown. */
export const hidden = new Set();

/**
 * structures: {name, prompt, rgb} of label 1, 2, ...; report: the model's, of as many prompts.
 * onChange is told when labels are shown or hidden, onPick gets the label of a name that was clicked.
 */
export function drawLegend(structures, report, onChange, onPick) {
  hidden.clear();
  const found = report.prompts.flatMap((prompt, index) => (prompt.present ? [index + 1] : []));
  const areShown = () => found.some((label) => !hidden.has(label));
  const update = () => {
    for (const eye of byId("legend").querySelectorAll("button.eye")) {
      eye.setAttribute("aria-pressed", !hidden.has(Number(eye.value)));
    }
    showAll.textContent = areShown() ? "Hide all" : "Show all";
    onChange();
  };
  const toggle = (label) => () => {
    if (!hidden.delete(label)) hidden.add(label);
    update();
  };
  showAll.onclick = () => {
    const act = areShown() ? "add" : "delete";
    found.forEach((label) => hidden[act](label));
    update();
  };
  const rows = structures.map(({ name, rgb }, index) => {
    const prompt = report.prompts[index];
    const label = index + 1;
    if (!prompt.present) return absentRow(name, prompt);
    return foundRow(name, rgb, label, prompt, toggle(label), () => onPick(label));
  });
  const isFound = (row) => !row.classList.contains("absent");
  byId("legend").replaceChildren(...rows.filter(isFound), ...rows.filter((row) => !isFound(row)));
  byId("amount").textContent = report.prompts.some((prompt) => "area_pixels" in prompt) ? "Pixels" : "ml";
  showAll.disabled = !found.length;
  update();
}

function foundRow(name, rgb, label, prompt, toggle, pick) {
  const about = { class: "eye", type: "button", value: label, "aria-label": `Show ${name}` };
  const eye = element("button", { ...about, click: toggle }, swatch(rgb));
  const go = element("button", { class: "name", type: "button", title: prompt.text, click: pick }, name);
  return element("tr", {}, element("td", {}, eye), element("td", {}, go), ...numbers(amount(prompt), prompt));
}

function absentRow(name, prompt) {
  const title = element("span", { class: "name", title: prompt.text }, name);
  const grey = element("span", { class: "eye" }, swatch(ABSENT));
  const cells = [element("td", {}, grey), element("td", {}, title), ...numbers("not found", prompt)];
  return element("tr", { class: "absent" }, ...cells);
}

function numbers(size, prompt) {
  const score = prompt.highest_score ?? prompt.highest_probability;
  return [size, score.toFixed(2)].map((text) => element("td", { class: "number" }, text));
}

/** Millilitres; voxels where the file does not say how large they are; pixels of an image. */
function amount({ volume_ml: ml, voxels, area_pixels: pixels }) {
  if (pixels !== undefined) return String(pixels);
  if (ml === null) return `${voxels} voxels`;
  return ml < 10 ? ml.toFixed(2) : ml.toFixed(0);
}
