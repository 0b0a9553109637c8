// Two pictures side by side, and their settings, with those marked that differ.

import { find, make, setText } from "./dom.js";
import { CHOICES, EXPERT, NAMES, duration, nameOf, times } from "./words.js";

let chosen = []; // IDs, two at most

export function prepareCompare(getJobs) {
  find("compare-two").addEventListener("click", () => {
    const pair = chosen.map((id) => getJobs().find((job) => job.id === id)).filter(Boolean);
    if (pair.length === 2) open(pair);
    else setText(find("compare-hint"), "Choose two pictures below first.");
  });
  find("pair-close").addEventListener("click", () => find("pair").close());
}

// The box of a card, to choose its picture.
export function chooser(id, name, onChanged) {
  const input = make("input", { type: "checkbox", className: "choose" });
  input.setAttribute("aria-label", `Compare ${name}`);
  input.addEventListener("change", () => {
    chosen = chosen.filter((each) => each !== id);
    if (input.checked) chosen = [...chosen.slice(-1), id]; // a third takes the place of the first
    onChanged();
  });
  return make("label", { className: "chooser" }, input, "Compare");
}

// Keep to those that are there; whether a picture is chosen.
export function showChosen(ids) {
  chosen = chosen.filter((id) => ids.has(id));
  for (const input of document.querySelectorAll("#cards .choose")) input.checked = chosen.includes(input.closest("li").dataset.id);
  find("compare-bar").hidden = ids.size < 2;
  find("compare-two").setAttribute("aria-disabled", String(chosen.length < 2));
  setText(find("compare-hint"), ["Choose two pictures below.", "Choose one more.", ""][chosen.length]);
}

function open(pair) {
  const figures = pair.map((job, index) => {
    const picture = make("img", { src: `/api/jobs/${job.id}/picture`, alt: `${nameOf(job)}, painted` });
    return make("figure", {}, picture, make("figcaption", { textContent: `${"AB"[index]}: ${nameOf(job)}` }));
  });
  find("pair-pictures").replaceChildren(...figures);
  const [left, right] = pair.map(facts);
  const names = [...new Set([...left.keys(), ...right.keys()])];
  const rows = names.map((name) => {
    const [a, b] = [left.get(name) ?? "as usual", right.get(name) ?? "as usual"];
    const mark = make("td", { className: "mark", textContent: a === b ? "" : "≠" });
    if (a !== b) mark.setAttribute("aria-label", "differs");
    const cells = [a, b].map((text) => make("td", { textContent: text }));
    return make("tr", { className: a === b ? "" : "differs" }, mark, make("th", { scope: "row", textContent: name }), ...cells);
  });
  find("pair-rows").replaceChildren(...rows);
  const count = rows.filter((row) => row.className).length;
  setText(find("pair-count"), count === 0 ? "They do not differ in anything." : `What differs is marked with ≠ (${count} of ${rows.length}).`);
  find("pair").showModal();
}

// What is said of a picture, by its name for people.
function facts(job) {
  const { options, more } = job, found = new Map();
  found.set("Photograph", job.content);
  found.set("Paintings", job.styles.join(", "));
  found.set("Size", `${job.width} × ${job.height}`);
  found.set("How much of the painting", times(Math.log10(options.strength ?? 1)));
  const labels = { ...NAMES, ...Object.fromEntries(EXPERT) };
  for (const [name, text] of Object.entries(labels)) {
    if (!(name in options)) continue;
    const value = options[name];
    found.set(text, CHOICES[name]?.[value] ?? (value === true ? "yes" : String(value)));
  }
  const regions = Object.keys(more).filter((name) => name.startsWith("content-mask")).length;
  if (regions) found.set("Regions (their shapes are not compared)", String(regions));
  if ("keep-mask" in more) found.set("A part stays as it is", "yes");
  if ("start" in more) found.set("Starts from", more.start);
  found.set("Iterations done", (job.facts.levels ?? []).map((level) => level.iterations).join(" + ") || String(job.facts.iterations ?? "unknown"));
  if (job.facts.seconds && !job.facts.continued) found.set("Time", duration(job.facts.seconds));
  return found;
}
