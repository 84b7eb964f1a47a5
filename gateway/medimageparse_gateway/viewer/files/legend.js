/** The table of what was found: show and hide, name, colour, size, score. */

import { byId, element, swatch } from "./elements.js";

const showAll = byId("show-all");

/** Labels that are not shown. */
export const hidden = new Set();

/**
 * structures: {name, prompt, rgb} of label 1, 2, ...; report: the model's, of as many prompts.
 * onChange is told when labels are shown or hidden, onPick gets the label of a name that was clicked.
 */
export function drawLegend(structures, report, onChange, onPick) {
  hidden.clear();
  const found = report.prompts.flatMap((prompt, index) => (prompt.present ? [index + 1] : []));
  const update = () => {
    document.querySelectorAll("#legend .eye").forEach((eye) => press(eye, !hidden.has(Number(eye.value))));
    press(showAll, found.some((label) => !hidden.has(label)));
    onChange();
  };
  const toggle = (label) => () => {
    if (!hidden.delete(label)) hidden.add(label);
    update();
  };
  showAll.onclick = () => {
    const areShown = found.some((label) => !hidden.has(label));
    found.forEach((label) => (areShown ? hidden.add(label) : hidden.delete(label)));
    update();
  };
  const rows = structures.map(({ name, rgb }, index) => {
    const prompt = report.prompts[index];
    const label = index + 1;
    return prompt.present ? foundRow(name, rgb, label, prompt, toggle(label), () => onPick(label)) : absentRow(name, prompt);
  });
  byId("legend").replaceChildren(...rows);
  byId("amount").textContent = report.prompts.some((prompt) => "volume_ml" in prompt) ? "ml" : "Pixels";
  showAll.disabled = !found.length;
  update();
}

function foundRow(name, rgb, label, prompt, toggle, pick) {
  const eye = element("button", { class: "eye", type: "button", value: label, "aria-label": `Show ${name}`, click: toggle });
  const go = element("button", { class: "name", type: "button", title: prompt.text, click: pick }, swatch(rgb), name);
  return element("tr", {}, element("td", {}, eye), element("td", {}, go), ...numbers(amount(prompt), prompt));
}

function absentRow(name, prompt) {
  const title = element("span", { class: "name", title: prompt.text }, swatch([90, 98, 107]), name);
  return element("tr", { class: "absent" }, element("td"), element("td", {}, title), ...numbers("not found", prompt));
}

function numbers(size, prompt) {
  const score = prompt.highest_score ?? prompt.highest_probability;
  return [size, score.toFixed(2)].map((text) => element("td", { class: "number" }, text));
}

function amount(prompt) {
  if (!("volume_ml" in prompt)) return String(prompt.area_pixels);
  return prompt.volume_ml < 10 ? prompt.volume_ml.toFixed(2) : prompt.volume_ml.toFixed(0);
}

function press(eye, isShown) {
  eye.setAttribute("aria-pressed", isShown);
}
