// The page: events of the server, and which picture is shown.

import { prepareCompare } from "./compare.js";
import { find, setText } from "./dom.js";
import { prepareForm } from "./form.js";
import { showGallery } from "./gallery.js";
import { showQueue } from "./queue.js";
import { follow, nextOf, prepareView, reconnected, show } from "./view.js";

let jobs = [], chosen = "", lost = false;

function choose(id) {
  chosen = id;
  render();
  const narrow = window.matchMedia("(max-width: 899px)").matches;
  if (narrow) find("view").scrollIntoView({ block: "start" });
  find("view").focus({ preventScroll: true });
}

function render() {
  // Without a choice, or if the chosen one is gone: what is being painted, or else the newest.
  const current = jobs.find((job) => job.id === chosen) ?? jobs.find((job) => job.status === "painting") ?? jobs.at(-1) ?? null;
  showQueue(jobs, choose);
  showGallery(jobs, current?.id, choose);
  show(current);
}

function listen() {
  const events = new EventSource("/api/events");
  events.addEventListener("jobs", (event) => {
    jobs = JSON.parse(event.data);
    chosen = nextOf(jobs) ?? chosen;
    render();
  });
  for (const name of ["phase", "progress", "warning"]) {
    events.addEventListener(name, (event) => follow(name, JSON.parse(event.data)));
  }
  events.addEventListener("open", () => {
    if (lost) reconnected();
    lost = false;
    setText(find("connection"), "");
  });
  events.addEventListener("error", () => {
    lost = true;
    const gone = events.readyState === EventSource.CLOSED;
    setText(find("connection"), gone ? "The studio has ended. Start npstyle studio again, and open the address that it prints: it continues." : "No connection to the studio; trying again …");
  });
}

prepareView();
prepareCompare(() => jobs);
listen();
prepareForm(choose).catch((error) => setText(find("connection"), error.message));
