// One picture: as it is being painted, or done.

import { losses, post, remove } from "./api.js";
import { draw } from "./chart.js";
import { find, setText } from "./dom.js";
import { fillFrom } from "./form.js";
import { preparePicture } from "./picture.js";
import { PHASE, STATUS, duration } from "./words.js";

let job = null, points = [], total = 0, source = "";
let loading = Promise.resolve(), curves = Promise.resolve();

export function prepareView() {
  for (const action of ["stop", "pause", "continue"]) {
    find(action).addEventListener("click", () => attempt(() => post(`/api/jobs/${job.id}/${action}`)));
  }
  find("again").addEventListener("click", () => attempt(() => fillFrom(job)));
  find("delete").addEventListener("click", () => find("confirm").showModal());
  find("confirm").addEventListener("close", () => {
    if (find("confirm").returnValue === "yes") attempt(() => remove(`/api/jobs/${job.id}`));
    find("confirm").returnValue = "";
  });
  preparePicture();
  find("after").addEventListener("error", () => find("after").removeAttribute("src")); // none yet
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
  find("stop").hidden = find("progress").hidden = !active;
  find("pause").hidden = !active && status !== "queued";
  find("continue").hidden = status !== "paused" && status !== "failed";
  find("again").hidden = !job.inputs;
  find("downloads").hidden = find("compare").hidden = find("before").hidden = !done;
  setText(find("continue"), status === "failed" ? "Try again" : "Continue");
  if (done) {
    setImage(`/api/jobs/${job.id}/picture`);
    find("before").src = `/api/jobs/${job.id}/before`;
    for (const form of ["png", "jpg", "tiff"]) find(`download-${form}`).href = `/api/jobs/${job.id}/download?format=${form}`;
    const time = facts.seconds && !facts.continued ? ` in ${duration(facts.seconds)}` : "";
    setText(find("state"), `${facts.width} × ${facts.height} pixels${time}. ${facts.stopped ? "Stopped and kept as it was. " : ""}${facts.output ? `Saved as ${facts.output}.` : ""}`);
  } else if (!active) {
    setText(find("state"), `This picture is ${STATUS[status]}.`);
  }
  find("after").alt = done ? `${job.content}, painted` : "The picture so far";
  find("command").value = job.command;
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

function begin() {
  [points, total, source] = [[], 0, ""];
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
  total = values.iterations;
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
