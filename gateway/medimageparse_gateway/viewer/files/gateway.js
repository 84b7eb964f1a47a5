/** What the page asks the gateway: the catalogue, and masks. */

import { sentence } from "./elements.js";

const V1 = new URL("../v1/", import.meta.url);
const BROKEN_OFF = "The connection broke off before the answer was complete. Ask again.";
let key = ""; // in the memory of this page and nowhere else

/** Ends a request with a sentence for the user; status is that of HTTP, 0 where there was none. */
export class Refusal extends Error {
  constructor(words, status = 0) {
    super(sentence(words));
    this.status = status;
  }
}

export function useKey(text) {
  key = text.trim();
}

/** The rows of the catalogue for "3d" or "2d". */
export async function structures(model) {
  return (await ask(`structures?model=${model}`)).json();
}

/**
 * Masks of a file. kind: "volumes" or "images"; options: name -> text of the contract.
 * onProgress gets {slices_done, slices, prompts_found}. Gives {report, labels}: labels are the bytes of the label map.
 */
export async function segment(kind, file, prompts, options, onProgress, signal) {
  const form = new FormData();
  form.append("image", file, "image"); // the user's file name may be a patient's: it stays here
  for (const prompt of prompts) form.append("prompt", prompt);
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  const headers = { Accept: "text/event-stream" };
  const response = await ask(kind, { method: "POST", body: form, headers, signal });
  let result = null;
  for await (const { event, data } of events(response.body)) {
    if (event === "progress") onProgress(data);
    if (event === "error") throw new Refusal(data.message, data.code);
    if (event === "result") result = data; // read on: to leave before the end would look like a hang-up
  }
  if (!result) throw new Refusal(BROKEN_OFF);
  return { report: result.report, labels: bytesOf(result.labels) };
}

async function ask(path, request = {}) {
  const headers = { ...request.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(new URL(path, V1), { ...request, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The gateway does not answer. Check that it runs and that this machine is connected");
  }
  if (!response.ok) throw new Refusal(await wordsOf(response), response.status);
  return response;
}

async function wordsOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    // not the gateway's own answer: a proxy's, before it
    return `The request was answered with HTTP ${response.status} ${response.statusText}`;
  }
}

/** The server-sent events of a body, as {event, data}. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = [];
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      // a result has megabytes: pieces are joined once, when their event ends
      pending.push(value);
      if (!value.includes("\n")) continue;
      const parts = pending.join("").split("\n\n");
      pending = [parts.pop()];
      yield* parts.map(readEvent).filter(Boolean);
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Refusal) throw error;
    throw new Refusal(BROKEN_OFF);
  } finally {
    reader.cancel().catch(() => {}); // the stream has failed already: that was said above
  }
}

/** An event of lines "event: name", "data: JSON"; null for a comment that keeps the connection alive. */
function readEvent(text) {
  const fields = Object.fromEntries(text.split("\n").map((line) => line.match(/^(\w*): ?(.*)$/)?.slice(1) ?? []));
  return fields.data ? { event: fields.event, data: JSON.parse(fields.data) } : null;
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
