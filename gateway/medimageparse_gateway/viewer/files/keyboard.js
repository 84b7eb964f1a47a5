/** Keys of the page. Fields keep theirs; NiiVue's own are taken over where the page has the same. */

import { byId, element } from "./elements.js";

const FIELDS = "input:not([type=radio], [type=checkbox], [type=range]), select, textarea, dialog";
const ADJUSTED_BY_ARROWS = "input[type=radio], input[type=range]";

/** keys: rows [keys, what they do, action(key)]; keys are names as in KeyboardEvent.key, "Ctrl+Enter" also with ⌘. */
export function listenToKeys(keys) {
  const actions = new Map(keys.flatMap(([names, , action]) => names.map((name) => [name, action])));
  document.addEventListener(
    "keydown",
    (event) => {
      const name = nameOf(event);
      const action = actions.get(name);
      const works = name === "Ctrl+Enter" || name === "Escape" || !event.target.closest(FIELDS);
      if (!action || !works || (name.startsWith("Arrow") && event.target.closest(ADJUSTED_BY_ARROWS))) return;
      if (document.querySelector("dialog[open]")) return; // a dialog closes by Escape itself
      event.preventDefault();
      event.stopPropagation();
      action(name);
    },
    { capture: true },
  );
  byId("keys").replaceChildren(
    ...keys.flatMap(([names, purpose]) => [
      element("dt", {}, ...names.map((name) => element("kbd", {}, shownAs(name)))),
      element("dd", {}, purpose),
    ]),
  );
}

function nameOf(event) {
  if (event.altKey) return "";
  if (event.ctrlKey || event.metaKey) return event.key === "Enter" ? "Ctrl+Enter" : "";
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

function shownAs(name) {
  const signs = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc" };
  return signs[name] ?? (name.length === 1 ? name.toUpperCase() : name);
}
