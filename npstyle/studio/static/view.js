// One picture: as it is being painted, or done.

import { losses, post, remove } from "./api.js";
import { draw } from "./chart.js";
import { find, make, setText } from "./dom.js";
import { fillFrom } from "./form.js";
import { preparePicture } from "./picture.js";
import { PHASE, STATUS, duration, times } from "./words.js";

let job = null, points = [], total = 0, source = "";
let loading = Promise.resolve(), curves = Promise.resolve();
let level = 0; // that is being painted
let followed = ""; // the ID of the painting from which another one is to go on, in this window
let known = new Set(); // IDs

export function prepareView() {
  for (const action of ["stop", "pause", "continue"]) {
    find(action).addEventListener("click", () => attempt(() => post(`/api/jobs/${job.id}/${action}`)));
  }
  find("next").addEventListener("click", () => {
    if (find("next").getAttribute("aria-disabled") === "false") attempt(() => post(`/api/jobs/${job.id}/next`, { level }));
  });
  find("go-on").addEventListener("click", () => attempt(goOn));
  find("go-on-strength").addEventListener("input", showStrength);
  find("again").addEventListener("click", () => attempt(() => fillFrom(job)));
  find("delete").addEventListener("click", () => find("confirm").showModal());
  find("confirm").addEventListener("close", () => {
    if (find("confirm").returnValue === "yes") attempt(() => remove(`/api/jobs/${job.id}`));
    find("confirm").returnValue = "";
  });
  preparePicture();
  find("after").addEventListener("error", () => find("after").removeAttribute("src")); // none yet
}

// Begin a painting of another strength from this one's picture, and show it as soon as it is there.
async function goOn() {
  followed = job.id;
  await post(`/api/jobs/${job.id}/go-on`, { strength: 10 ** Number(find("go-on-strength").value) });
}

// The ID of the painting that goes on from the one that is shown, once it is there.
export function nextOf(jobs) {
  const next = jobs.find((each) => followed && each.origin === followed && !known.has(each.id));
  known = new Set(jobs.map((each) => each.id));
  if (next) followed = "";
  return next?.id;
}

function showStrength() {
  setText(find("go-on-value"), times(Number(find("go-on-strength").value)));
  find("go-on-strength").setAttribute("aria-valuetext", find("go-on-value").textContent);
}

async function attempt(action) {
  setText(find("view-error"), "");
  try {
    await action();
  } catch (error) {
    setText(find("view-error"), error.message);
  }
}

// Show a painting, or its new state; null for none.
export function show(next) {
  const other = next?.id !== job?.id;
  job = next;
  find("shown").hidden = job === null;
  find("empty").hidden = job !== null;
  if (job === null) return;
  if (other) begin();
  const { status, facts } = job;
  const done = status === "done", active = status === "painting";
  find("shown").style.setProperty("--ratio", job.width / job.height); // before there is a picture, so that nothing moves
  setText(find("title"), `${job.content} in the manner of ${job.styles.join(", ")}`);
  setText(find("view-error"), job.error);
  setText(find("announcement"), `${find("title").textContent}: ${STATUS[status]}`); // not each iteration
  find("stop").hidden = find("next").hidden = find("progress").hidden = !active;
  find("pause").hidden = !active && status !== "queued";
  find("continue").hidden = status !== "paused" && status !== "failed";
  find("again").hidden = !job.inputs;
  find("go-on-box").hidden = !job.inputs || !["painting", "paused", "done"].includes(status);
  find("downloads").hidden = find("compare").hidden = find("before").hidden = !done;
  setText(find("continue"), status === "failed" ? "Try again" : "Continue");
  if (done) {
    setImage(`/api/jobs/${job.id}/picture`);
    find("before").src = `/api/jobs/${job.id}/before`;
    for (const form of ["png", "jpg", "tiff"]) find(`download-${form}`).href = `/api/jobs/${job.id}/download?format=${form}`;
    const time = facts.seconds && !facts.continued ? ` in ${duration(facts.seconds)}` : "";
    setText(find("state"), [`${facts.width} × ${facts.height} pixels${time}.`, endedEarly(facts), facts.output ? `Saved as ${facts.output}.` : ""].filter(Boolean).join(" "));
  } else if (!active) {
    setText(find("state"), `This picture is ${STATUS[status]}.`);
  }
  find("after").alt = done ? `${job.content}, painted` : "The picture so far";
  find("command").value = job.command;
  showFiles();
  if (done || other) curves = loadLosses();
}

// When all that is shown has come from the server.
export async function complete() {
  await Promise.all([loading, curves]);
  await Promise.all(["after", "before"].map((id) => find(id).complete || arrived(find(id))));
}

// Not by decode(): a page that nobody sees need not decode anything.
function arrived(image) {
  return new Promise((resolve) => {
    for (const name of ["load", "error"]) image.addEventListener(name, resolve, { once: true });
  });
}

function endedEarly({ stopped, levels = [] }) {
  const short = levels.flatMap((one, index) => (one.whole || (stopped && index === levels.length - 1) ? [] : [index + 1]));
  const cut = short.length ? `Ended early: size ${short.join(", size ")}.` : "";
  return [stopped ? "Stopped and kept as it was." : "", cut].join(" ").trim();
}

// The files that the command names beside the pictures, and whether it paints the same.
function showFiles() {
  find("command-note").hidden = !job.facts.enlarged;
  const files = Object.entries(job.more);
  find("command-files").hidden = files.length === 0;
  const links = files.map(([file, name]) => make("li", {}, make("a", { href: `/api/jobs/${job.id}/inputs/${file}`, download: name, textContent: name })));
  find("command-links").replaceChildren(...links);
}

function begin() {
  [points, total, source, level] = [[], 0, "", 0];
  find("next").setAttribute("aria-disabled", "true"); // until it is known that there is one
  find("go-on-strength").value = Math.log10(job.options.strength ?? 1);
  showStrength();
  find("after").removeAttribute("src");
  find("before").removeAttribute("src");
  find("slider").value = 100;
  find("frame").style.setProperty("--cut", "0%");
  find("progress").value = 0;
  find("curves").hidden = true;
  setText(find("note"), "");
  if (job.status === "painting" || job.status === "paused") setImage(`/api/jobs/${job.id}/preview?${Date.now()}`);
  if (job.status === "painting") setText(find("state"), "");
}

function setImage(address) {
  if (address === source) return;
  source = address;
  const next = new Image(); // shown once it is there, so that nothing flickers
  loading = arrived(next).then(() => {
    if (source === address && next.naturalWidth) find("after").src = address;
  });
  next.src = address;
}

async function loadLosses() {
  const { id } = job;
  const found = await losses(id).catch(() => []);
  if (job?.id !== id) return;
  // Those after a checkpoint were done twice, if the run was interrupted.
  const known = new Map([...found, ...points].map((point) => [point.iteration, point]));
  points = [...known.values()].sort((a, b) => a.iteration - b.iteration);
  drawCurves();
}

function drawCurves() {
  find("curves").hidden = points.length === 0;
  if (points.length) draw(find("chart"), find("legend"), points, job.status === "done" ? 0 : total);
}

export function reconnected() {
  if (job) loadLosses();
}

// What the server says of the picture that is being painted.
export function follow(name, values) {
  if (job?.id !== values.id) return;
  if (name === "phase") setText(find("state"), PHASE[values.phase] ?? "");
  if (name === "phase" && values.phase === "start" && points.length === 0) setImage(`/api/jobs/${job.id}/before`);
  if (name === "warning") setText(find("note"), `Note: ${values.text}`);
  if (name !== "progress") return;
  [total, level] = [values.iterations, values.level];
  find("next").setAttribute("aria-disabled", String(values.level >= values.levels)); // not hidden: others would move
  if (points.length && values.iteration > points.at(-1).iteration + 1) loadLosses();
  points = points.filter((point) => point.iteration < values.iteration);
  points.push(values);
  find("progress").max = values.iterations;
  find("progress").value = values.iteration;
  const left = values.seconds_left === null ? "" : `, about ${duration(values.seconds_left)} left`;
  setText(find("state"), `Size ${values.level} of ${values.levels} (${values.width} × ${values.height}), iteration ${values.iteration} of ${values.iterations}${left}.`);
  if (values.preview) setImage(`/api/jobs/${job.id}/preview?${values.preview}`);
  drawCurves();
}
