// Those that wait, in the order in which they will be painted, with buttons to change it.

import { post } from "./api.js";
import { find, make, setText } from "./dom.js";
import { nameOf } from "./words.js";

const MOVES = [["first", "First"], ["up", "Earlier"], ["down", "Later"]];
const rows = new Map(); // by ID: they stay the same, so that the focus does

export const waiting = (jobs) => jobs.filter((job) => job.status === "queued").sort((a, b) => a.place - b.place || (a.id < b.id ? -1 : 1));

export function showQueue(jobs, onChosen) {
  const queued = waiting(jobs), list = find("waiting"), focused = document.activeElement;
  find("queue").hidden = queued.length === 0;
  for (const id of rows.keys()) if (!queued.some((job) => job.id === id)) rows.delete(id);
  const items = queued.map((job, index) => {
    if (!rows.has(job.id)) rows.set(job.id, row(job, onChosen));
    const item = rows.get(job.id);
    for (const button of item.querySelectorAll("[data-move]")) {
      const useless = button.dataset.move === "down" ? index === queued.length - 1 : index === 0;
      button.setAttribute("aria-disabled", String(useless)); // not disabled: it would lose the focus
    }
    return item;
  });
  if (items.length === list.children.length && items.every((item, index) => item === list.children[index])) return;
  list.replaceChildren(...items);
  if (list.contains(focused)) focused.focus({ preventScroll: true });
}

function row(job, onChosen) {
  const name = nameOf(job);
  const show = make("button", { type: "button", className: "name", textContent: name });
  show.addEventListener("click", () => onChosen(job.id));
  const buttons = MOVES.map(([where, text]) => {
    const button = make("button", { type: "button", textContent: text });
    button.dataset.move = where;
    button.setAttribute("aria-label", `${text}: ${name}`);
    button.addEventListener("click", () => move(job.id, where, button));
    return button;
  });
  const item = make("li", {}, show, make("span", { className: "moves" }, ...buttons));
  item.dataset.id = job.id;
  return item;
}

async function move(id, where, button) {
  setText(find("error-queue"), "");
  if (button.getAttribute("aria-disabled") === "true") return;
  try {
    await post(`/api/jobs/${id}/${where}`);
  } catch (error) {
    setText(find("error-queue"), error.message);
  }
}
