// The form: pictures, options, what they will take, and the order.

import { get, post, upload } from "./api.js";
import { find, make, setText, showError } from "./dom.js";
import { currentMasks, prepareMasks, restoreMasks, showMasks } from "./masks.js";
import { CHOICES, EXPERT, bytes, duration, times } from "./words.js";

const WAIT = 300; // milliseconds without a change before the server is asked for an estimate
const pictures = { content: [], styles: [] };
let start = null; // the picture to start from, if another one than the recipe's
let maxStyles = 1, maxUpload = 0, timer = 0, asked = 0;

export async function prepareForm(onOrdered) {
  const known = await get("/api/choices");
  [maxStyles, maxUpload] = [known.max_styles, known.max_upload];
  fillChoice("color", known.choices.color);
  fillChoice("statistics", ["", ...known.choices.statistics]);
  fillChoice("preset", ["", ...known.presets.filter((name) => name !== "default")], { "": "the usual one" });
  fillExpert(known);
  find("offer-examples").hidden = !known.examples;
  for (const kind of ["content", "styles"]) prepareDrop(kind);
  find("examples").addEventListener("click", takeExamples);
  find("start-remove").addEventListener("click", () => {
    showStart(null);
    find("masks").focus();
    changed();
  });
  prepareMasks(() => pictures, changed);
  find("form").addEventListener("input", () => changed());
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    order(onOrdered);
  });
  changed();
}

function fillChoice(name, values, words = {}) {
  const known = { ...CHOICES[name], ...words };
  find(name).replaceChildren(...values.map((value) => make("option", { value, textContent: known[value] ?? value })));
}

function fillExpert({ choices, defaults }) {
  const fields = EXPERT.map(([name, text, kind, step, max]) => {
    const error = make("p", { className: "error", id: `error-${name}` });
    error.setAttribute("role", "alert");
    const label = make("label", { htmlFor: name, textContent: text });
    const input = kind === "choice" ? make("select") : make("input", { type: kind === "check" ? "checkbox" : "number" });
    Object.assign(input, { id: name, name });
    input.setAttribute("aria-describedby", error.id);
    if (kind === "check") label.prepend(input);
    else if (kind === "number") {
      Object.assign(input, { min: 0, max, step, placeholder: name in defaults ? `usually ${defaults[name]}` : "usually 1" });
    } else {
      const first = name === "weights" ? [] : [make("option", { value: "", textContent: "as the recipe says" })];
      const values = choices[name] ?? Object.keys(CHOICES[name]);
      input.append(...first, ...values.map((value) => make("option", { value, textContent: CHOICES[name][value] ?? value })));
    }
    return make("div", { className: "field" }, label, ...(kind === "check" ? [] : [input]), error);
  });
  find("expert-fields").append(...fields);
}

// --- pictures ---------------------------------------------------------------------------------

function prepareDrop(kind) {
  const input = find(kind), zone = find(`drop-${kind}`);
  input.addEventListener("change", async () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    await take(kind, files);
  });
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    take(kind, [...event.dataTransfer.files]);
  });
  for (const name of ["dragover", "drop"]) {
    window.addEventListener(name, (event) => event.preventDefault()); // else the browser shows the file
  }
}

async function take(kind, files) {
  showError(kind, "");
  for (const file of kind === "content" ? files.slice(0, 1) : files) {
    try {
      if (file.size > maxUpload) throw new Error(`${file.name} has more than ${bytes(maxUpload)}; make it smaller first.`);
      add(kind, await upload(file));
    } catch (error) {
      showError(kind, `${file.name}: ${error.message}`);
    }
  }
  changed();
}

function add(kind, picture) {
  const others = pictures[kind].filter((each) => each.id !== picture.id);
  pictures[kind] = kind === "content" ? [picture] : [...others, picture].slice(-maxStyles);
  showPictures(kind);
}

function showStart(picture) {
  start = picture;
  find("start-field").hidden = picture === null;
  setText(find("start-name"), picture?.name ?? "");
}

function showPictures(kind) {
  const items = pictures[kind].map((picture) => {
    const button = make("button", { type: "button", textContent: "Remove" });
    button.setAttribute("aria-label", `Remove ${picture.name}`);
    button.addEventListener("click", () => {
      pictures[kind] = pictures[kind].filter((each) => each !== picture);
      showPictures(kind);
      find(kind).focus();
      changed();
    });
    const name = make("span", { textContent: picture.name, title: picture.name });
    const size = make("span", { textContent: `${picture.width} × ${picture.height}` });
    return make("li", {}, make("img", { src: `/api/pictures/${picture.id}`, alt: "" }), name, size, button);
  });
  find(`${kind}-pictures`).replaceChildren(...items);
  const some = items.length > 0;
  setText(document.querySelector(`label[for=${kind}]`), kind === "content" ? (some ? "Choose another" : "Choose a photograph") : some ? "Add a painting" : "Choose a painting");
}

async function takeExamples() {
  try {
    const [content, style] = await post("/api/examples");
    add("content", content);
    add("styles", style);
    changed();
  } catch (error) {
    showError("content", error.message);
  }
}

// --- options ----------------------------------------------------------------------------------

function options() {
  const values = { strength: 10 ** Number(find("strength").value) };
  if (values.strength === 1) delete values.strength;
  for (const input of document.querySelectorAll("#form [name]")) {
    if (input.type === "checkbox") {
      if (input.checked) values[input.name] = true;
    } else if (input.type === "number") {
      if (input.value !== "" || input.validity.badInput) values[input.name] = input.validity.badInput ? "no number" : Number(input.value);
    } else if (input.value !== "" && !(input.name === "weights" && input.value === "auto")) {
      values[input.name] = input.value;
    }
  }
  if (values.color === "style" && !values.preset) delete values.color;
  if (values.seed === 0) delete values.seed;
  return values;
}

function currentOrder() {
  const styles = pictures.styles.map((picture) => picture.id);
  return { content: pictures.content[0]?.id, styles, masks: currentMasks(), start: start?.id ?? null, options: options() };
}

function complete() {
  return pictures.content.length > 0 && pictures.styles.length > 0;
}

function changed() {
  setText(find("strength-value"), times(Number(find("strength").value)));
  find("strength").setAttribute("aria-valuetext", find("strength-value").textContent);
  showMasks();
  clearTimeout(timer);
  if (!complete()) setText(find("estimate"), "Choose a photograph and a painting.");
  else timer = setTimeout(estimate, WAIT);
}

async function estimate() {
  const number = ++asked;
  try {
    const found = await post("/api/estimate", currentOrder());
    if (number !== asked) return;
    clearErrors();
    const free = found.free === null ? "" : ` of the ${bytes(found.free)} that are free`;
    const time = `${found.measured ? "about" : found.tried ? "roughly" : "very roughly"} ${duration(found.seconds)}`;
    const note = found.note ? ` Note: ${found.note}.` : "";
    setText(find("estimate"), `${found.width} × ${found.height} pixels, ${found.iterations} iterations: ${time}, ${bytes(found.memory)} of memory${free}.${note}`);
  } catch (error) {
    if (number === asked) refuse(error);
  }
}

function clearErrors() {
  for (const place of document.querySelectorAll("#form .error")) place.textContent = "";
  for (const input of document.querySelectorAll("#form [aria-invalid=true]")) input.setAttribute("aria-invalid", "false");
}

function refuse(error) {
  clearErrors();
  const field = { style: "styles", picture: "content" }[error.field?.replace(/ \d+$/, "")] ?? error.field;
  const expert = find("expert");
  showError(field || "options", error.message);
  if (field && expert.contains(find(field))) expert.open = true;
  setText(find("estimate"), "This can't be painted yet.");
}

async function order(onOrdered) {
  if (!complete()) {
    for (const kind of ["styles", "content"]) {
      if (pictures[kind].length === 0) {
        showError(kind, kind === "content" ? "Choose a photograph first." : "Choose at least one painting first.");
        find(kind).focus();
      }
    }
    return;
  }
  try {
    const { id } = await post("/api/jobs", currentOrder());
    clearErrors();
    onOrdered(id);
  } catch (error) {
    refuse(error);
    find(error.field)?.focus();
  }
}

// Fill the form with what a painting was made of.
export async function fillFrom(job) {
  const inputs = await post(`/api/jobs/${job.id}/inputs`);
  pictures.content = [inputs.content];
  pictures.styles = inputs.styles;
  restoreMasks(inputs);
  showStart(inputs.start);
  showPictures("content");
  showPictures("styles");
  find("form").reset();
  for (const [name, value] of Object.entries(job.options)) {
    const input = find(name);
    if (name === "strength") input.value = Math.log10(value);
    else if (input?.type === "checkbox") input.checked = value;
    else if (input) input.value = value;
    if (input && find("expert").contains(input)) find("expert").open = true;
  }
  changed();
  find("form").scrollIntoView({ block: "start" });
  find("strength").focus({ preventScroll: true });
}
