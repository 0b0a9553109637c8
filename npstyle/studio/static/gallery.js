// All pictures, the newest first; those that wait in the order in which they will be painted.

import { chooser, showChosen } from "./compare.js";
import { find, make } from "./dom.js";
import { waiting } from "./queue.js";
import { STATUS, nameOf } from "./words.js";

const cards = new Map(); // by ID: they stay the same, so that the focus does
let done = new Set(); // IDs of those that can be compared

export function showGallery(jobs, current, onChosen) {
  const known = new Set(jobs.map((job) => job.id));
  for (const id of cards.keys()) if (!known.has(id)) cards.delete(id);
  const queued = waiting(jobs);
  done = new Set(jobs.filter((job) => job.status === "done").map((job) => job.id));
  const items = [...jobs].reverse().map((job) => {
    if (!cards.has(job.id)) cards.set(job.id, card(job, onChosen));
    const item = cards.get(job.id), button = item.firstChild;
    const place = queued.indexOf(job) + 1;
    update(button, job, place && queued.length > 1 ? `waiting, ${place} of ${queued.length}` : STATUS[job.status]);
    item.lastChild.classList.toggle("unavailable", job.status !== "done" || done.size < 2);
    button.setAttribute("aria-current", String(job.id === current));
    return item;
  });
  const list = find("cards");
  if (items.length !== list.children.length || items.some((item, index) => item !== list.children[index])) list.replaceChildren(...items);
  find("no-pictures").hidden = items.length > 0;
  showChosen(done);
}

function card(job, onChosen) {
  const button = make("button", { type: "button" }, make("div", { className: "blank" }), make("span"), make("span", { className: "status" }));
  button.addEventListener("click", () => onChosen(job.id));
  const item = make("li", {}, button, chooser(job.id, nameOf(job), () => showChosen(done)));
  item.dataset.id = job.id;
  return item;
}

function update(button, job, status) {
  const [picture, name, state] = button.children;
  if (job.status === "done" && picture.tagName !== "IMG") {
    picture.replaceWith(make("img", { src: `/api/jobs/${job.id}/picture`, alt: "", loading: "lazy" }));
  }
  name.textContent = nameOf(job);
  state.textContent = job.facts.stopped ? "stopped and kept" : status;
}
