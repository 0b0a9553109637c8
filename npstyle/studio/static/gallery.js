// All pictures, the newest first; those that wait in the order in which they will be painted.

import { find, make } from "./dom.js";
import { STATUS } from "./words.js";

const cards = new Map(); // buttons by ID: they stay the same, so that the focus does

export function showGallery(jobs, current, onChosen) {
  const known = new Set(jobs.map((job) => job.id));
  for (const id of cards.keys()) if (!known.has(id)) cards.delete(id);
  const waiting = jobs.filter((job) => job.status === "queued");
  const items = [...jobs].reverse().map((job) => {
    if (!cards.has(job.id)) cards.set(job.id, card(job, onChosen));
    const item = cards.get(job.id), button = item.firstChild;
    const place = waiting.indexOf(job) + 1;
    update(button, job, place && waiting.length > 1 ? `waiting, ${place} of ${waiting.length}` : STATUS[job.status]);
    button.setAttribute("aria-current", String(job.id === current));
    return item;
  });
  const list = find("cards");
  if (items.length !== list.children.length || items.some((item, index) => item !== list.children[index])) list.replaceChildren(...items);
  find("no-pictures").hidden = items.length > 0;
}

function card(job, onChosen) {
  const button = make("button", { type: "button" }, make("div", { className: "blank" }), make("span"), make("span", { className: "status" }));
  button.addEventListener("click", () => onChosen(job.id));
  return make("li", {}, button);
}

function update(button, job, status) {
  const [picture, name, state] = button.children;
  if (job.status === "done" && picture.tagName !== "IMG") {
    picture.replaceWith(make("img", { src: `/api/jobs/${job.id}/picture`, alt: "", loading: "lazy" }));
  }
  name.textContent = `${job.content} – ${job.styles.join(", ")}`;
  state.textContent = job.facts.stopped ? "stopped and kept" : status;
}
