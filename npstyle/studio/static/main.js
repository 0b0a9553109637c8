// The page: events of the server, and which picture is shown. A run of the command line is shown by the same
// page, without the form and the gallery.

import { prepareCompare } from "./compare.js";
import { find, setText } from "./dom.js";
import { prepareForm } from "./form.js";
import { showGallery } from "./gallery.js";
import { showQueue } from "./queue.js";
import { complete, follow, nextOf, prepareView, reconnected, show } from "./view.js";

const watched = document.body.classList.contains("watched"); // one run, with which the server ends
const ENDED = watched ? "The run has ended, or was ended. What it has painted is where it was told to." : "The studio has ended. Start npstyle studio again, and open the address that it prints: it continues.";
const AGAIN = 3000; // milliseconds until a page that was refused asks again: another window may have the new token
const LOST = watched ? "No connection to the run: it has ended, or was ended." : "No connection to the studio; trying again …";
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
    if (watched && jobs[0].status !== "painting") finish(events);
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
    setText(find("connection"), gone ? ENDED : LOST);
    if (gone && !watched) setTimeout(listen, AGAIN);
  });
}

// The server waits for this before it ends; what is shown stays.
async function finish(events) {
  await complete();
  events.close();
  find("connection").className = "over";
  setText(find("connection"), "The run is over.");
}

prepareView();
prepareCompare(() => jobs);
listen();
if (!watched) prepareForm(choose).catch((error) => setText(find("connection"), error.message));
