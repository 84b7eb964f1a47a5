/** Elements of the page, found by id and made without HTML text. */

export const byId = (id) => document.getElementById(id);

/** A new element; attributes with the value false are left out, functions are listeners. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** A small square of a colour [r, g, b]. */
export function swatch(rgb) {
  const made = element("span", { class: "swatch", "aria-hidden": "true" });
  made.style.backgroundColor = `rgb(${rgb.join()})`;
  return made;
}

/** Words of a server as a sentence of the page. */
export function sentence(words) {
  const text = words.trim();
  return text && text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** Gives the user a file of bytes under a name. */
export function download(name, ...parts) {
  const address = URL.createObjectURL(new Blob(parts));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000); // a browser may ask where to, and reads it then
}
