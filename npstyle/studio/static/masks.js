// Regions painted over the photograph and the paintings, and what of the photograph stays as it is.

import { upload } from "./api.js";
import { Layer } from "./canvas.js";
import { find, make, setText } from "./dom.js";
import { maskFile } from "./png.js";

const MAX_REGIONS = 8, KEEP = 9;
const COLORS = [[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167], [120, 120, 120], [255, 255, 255]];
const NAMES = ["", 1, 2, 3, 4, 5, 6, 7, 8, "stays"].map(String);
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// By the IDs of photograph and paintings: layers, the photograph's first, what of them was sent, and what of
// that and of a page before this one is still to be shown. So the regions are there again when the same pictures
// are chosen again, also after the page was loaded again.
const sets = new Map();
let getPictures = () => ({}), onChanged = () => {};
let layers = [], current = 0, regions = 2, last = null, cursor = null;

export function prepareMasks(pictures, changed) {
  [getPictures, onChanged] = [pictures, changed];
  find("masks").addEventListener("click", open);
  find("masks-remove").addEventListener("click", () => {
    ownSet().sent = null;
    keep();
    find("masks").focus();
    showMasks();
    onChanged();
  });
  find("mask-close").addEventListener("click", () => find("mask-editor").close());
  find("mask-use").addEventListener("click", use);
  find("mask-undo").addEventListener("click", undo);
  find("mask-all").addEventListener("click", () => change((layer) => layer.fillAll(number())));
  find("mask-clear").addEventListener("click", () => change((layer) => layer.fillAll(0)));
  find("mask-more").addEventListener("click", () => {
    regions++;
    showColors(regions);
  });
  find("brush").addEventListener("input", draw);
  const canvas = find("mask-canvas");
  canvas.addEventListener("pointerdown", begin);
  canvas.addEventListener("pointermove", hover);
  canvas.addEventListener("pointerleave", () => show(null));
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, end);
  canvas.addEventListener("keydown", byKey);
  canvas.addEventListener("blur", () => show(null));
  canvas.addEventListener("focus", draw);
}

// --- what the form sends ------------------------------------------------------------------------

function key() {
  const { content, styles } = getPictures();
  return [content[0], ...styles].map((picture) => picture?.id).join(" ");
}

function ownSet() {
  const kept = () => JSON.parse(sessionStorage.getItem(`regions ${key()}`) ?? "{}");
  if (!sets.has(key())) sets.set(key(), { sent: null, known: [], runs: [], ...kept(), layers: [] });
  return sets.get(key());
}

// Let the browser keep the regions for as long as the tab is open.
function keep() {
  const { layers, sent, known, runs } = ownSet();
  const values = { sent, known, runs: layers.length ? layers.map((layer) => layer.runs()) : runs };
  try {
    sessionStorage.setItem(`regions ${key()}`, JSON.stringify(values));
  } catch {
    setText(find("error-mask"), "The browser has no room to keep these regions: they are lost if the page is loaded again before a painting has used them.");
  }
}

// The IDs of the masks of the pictures that are chosen, or null.
export function currentMasks() {
  return ownSet().sent;
}

export function showMasks() {
  const sent = currentMasks();
  const count = sent?.content.length ?? 0;
  const parts = [...(count ? [count === 1 ? "one region" : `${count} regions`] : []), ...(sent?.keep ? ["a part that stays as it is"] : [])];
  find("masks-remove").hidden = sent === null;
  setText(find("masks"), sent ? "Change the regions …" : "Paint regions …");
  setText(find("hint-masks"), sent ? `Used: ${parts.join(", and ")}.` : "To say which part of the photograph is painted like which part of a painting, and what stays as it is.");
}

// Take over the masks of a painting, whose pictures are those that are chosen now.
export function restoreMasks({ content_masks, style_masks, keep: kept }) {
  const set = { layers: [], sent: null, known: [], runs: [] };
  sets.set(key(), set);
  if (content_masks.length || kept) {
    set.sent = { content: content_masks.map((one) => one.id), styles: style_masks.map((one) => one.id), keep: kept?.id ?? null };
    const several = getPictures().styles.length > 1;
    content_masks.forEach((mask, index) => set.known.push([0, mask.id, index + 1]));
    style_masks.forEach((mask, index) => set.known.push([several ? index + 1 : 1, mask.id, index + 1]));
    if (kept) set.known.push([0, kept.id, KEEP]);
  }
  keep();
  showMasks();
}

// --- the editor ---------------------------------------------------------------------------------

async function open() {
  const { content, styles } = getPictures();
  setText(find("error-masks"), "");
  if (content.length === 0 || styles.length === 0) {
    setText(find("error-masks"), "Choose a photograph and a painting first.");
    return;
  }
  const set = ownSet();
  try {
    if (set.layers.length === 0) set.layers = await Promise.all([content[0], ...styles].map(Layer.of));
    set.runs.splice(0).forEach((runs, index) => set.layers[index].takeRuns(runs));
    for (const [index, id, number] of set.known.splice(0)) await set.layers[index].add(id, number);
  } catch (error) {
    setText(find("error-masks"), error.message);
    return;
  }
  layers = set.layers;
  const highest = Math.max(0, ...layers.flatMap((layer) => [...layer.counts().keys()]).filter((each) => each !== KEEP));
  regions = single() ? Math.max(2, highest) : layers.length - 1;
  setText(find("error-mask"), "");
  find("mask-pictures").replaceChildren(make("legend", { textContent: "Over" }), ...layers.map((layer, index) => choice("mask-picture", index, index ? `painting${single() ? "" : ` ${index}`}` : "photograph", index === 0, () => select(index))));
  find("mask-editor").showModal();
  select(0);
}

function single() {
  return layers.length === 2;
}

function choice(name, value, text, checked, onChosen) {
  const input = make("input", { type: "radio", name, value, checked });
  input.addEventListener("change", onChosen);
  return make("label", {}, input, make("span", { textContent: text }));
}

function select(index) {
  current = index;
  cursor = null;
  setText(find("mask-name"), layers[index].picture.name);
  find("mask-frame").style.setProperty("--ratio", layers[index].width / layers[index].height);
  showColors(single() || index === 0 ? 1 : index);
  draw();
}

// The numbers, with those disabled that can't be painted over the present picture, so that nothing moves.
function showColors(chosen) {
  const numbers = [...Array.from({ length: regions }, (_, index) => index + 1), KEEP];
  const items = numbers.map((each) => {
    const label = choice("mask-number", each, each === KEEP ? "stays as it is" : `region ${each}`, each === chosen, draw);
    label.classList.add(`number-${each}`);
    label.firstChild.disabled = current > 0 && (each === KEEP || !(single() || each === current));
    return label;
  });
  find("mask-numbers").replaceChildren(make("legend", { textContent: "With" }), ...items);
  find("mask-more").hidden = !single() || regions >= MAX_REGIONS;
  setText(find("mask-hint"), hint());
  draw();
}

function hint() {
  const rest = "What is in no region is influenced by its surroundings only.";
  if (current === 0) return single() ? `A region is painted like the same region of the painting. ${rest}` : `A region is painted like the painting of its number. ${rest}`;
  return "What the region of the photograph is to look like. If nothing is painted here, that is all of the painting.";
}

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`)?.value;
const tool = () => chosen("mask-tool");
const number = () => (tool() === "eraser" ? 0 : Number(chosen("mask-number")));

// As a part of the picture's shorter side, so that it looks alike on all of them.
function radius() {
  const { width, height } = layers[current];
  return Math.max(1, (Number(find("brush").value) / 200) * Math.min(width, height));
}

// --- painting -----------------------------------------------------------------------------------

function point(event) {
  const box = find("mask-canvas").getBoundingClientRect(), { width, height } = layers[current];
  const inside = (value, limit) => Math.min(limit - 1, Math.max(0, value));
  return [inside(((event.clientX - box.left) / box.width) * width, width), inside(((event.clientY - box.top) / box.height) * height, height)];
}

function begin(event) {
  if (event.button !== 0) return;
  event.preventDefault();
  find("mask-canvas").focus({ preventScroll: true });
  find("mask-canvas").setPointerCapture(event.pointerId);
  layers[current].remember();
  last = apply(point(event));
}

function hover(event) {
  const at = point(event);
  if (last) paintTo(at);
  show(event.pointerType === "touch" ? null : at); // a finger covers it
}

function show(at) {
  cursor = at;
  if (!frame) frame = requestAnimationFrame(draw);
}

// Use the tool at a point, and return the point if a stroke can go on from there.
function apply(at) {
  const layer = layers[current], filling = tool() === "fill" || tool() === "similar";
  if (filling) layer.fill(at, number(), tool() === "similar");
  else layer.stroke(at, at, radius(), number());
  changed();
  return filling ? null : at;
}

function paintTo(at) {
  layers[current].stroke(last, at, radius(), number());
  last = at;
  changed();
}

function end() {
  last = null;
  announce();
}

function change(action) {
  action(layers[current]);
  changed();
  announce();
}

function undo() {
  const done = layers[current].undo();
  changed();
  if (done) announce();
  else setText(find("mask-status"), "There is nothing to undo.");
}

function byKey(event) {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") undo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key in KEYS) move(KEYS[event.key], event.shiftKey);
  else if (event.key === " " || event.key === "Enter") {
    layers[current].remember();
    apply(here());
    announce();
  } else if (event.key === "[" || event.key === "]") {
    find("brush").value = Number(find("brush").value) + (event.key === "]" ? 2 : -2);
    draw();
  } else return;
  event.preventDefault();
}

function here() {
  const { width, height } = layers[current];
  return (cursor ??= [width / 2, height / 2]);
}

function move([x, y], painting) {
  const { width, height } = layers[current], from = here(), step = Math.max(2, radius() / 2);
  cursor = [Math.min(width - 1, Math.max(0, from[0] + x * step)), Math.min(height - 1, Math.max(0, from[1] + y * step))];
  const stroke = painting && (tool() === "brush" || tool() === "eraser");
  if (stroke) {
    layers[current].remember();
    layers[current].stroke(from, cursor, radius(), number());
  }
  changed();
  if (stroke) keep();
}

let frame = 0;

function changed() {
  setText(find("error-mask"), "");
  if (!frame) frame = requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  if (layers.length === 0) return;
  const canvas = find("mask-canvas"), layer = layers[current];
  layer.draw(canvas, COLORS, NAMES);
  canvas.setAttribute("aria-label", `${current ? "Painting" : "Photograph"} ${layer.picture.name}: ${summary(layer)}`);
  if (cursor === null) return;
  const context = canvas.getContext("2d"), unit = layer.width / canvas.clientWidth; // a pixel of the screen
  const brush = tool() === "brush" || tool() === "eraser";
  for (const [color, width] of [["#000", 4], ["#fff", 2]]) {
    Object.assign(context, { strokeStyle: color, lineWidth: width * unit });
    context.beginPath();
    context.arc(...cursor, brush ? Math.max(2 * unit, radius()) : 4 * unit, 0, 2 * Math.PI);
    context.stroke();
  }
}

function summary(layer) {
  const parts = [...layer.counts()].sort(([a], [b]) => a - b).map(([each, count]) => {
    const percent = Math.max(1, Math.round((100 * count) / layer.cells.length));
    return `${each === KEEP ? "stays as it is" : `region ${each}`} ${percent}\u00a0%`;
  });
  return parts.join(", ") || "nothing painted yet";
}

function announce() {
  keep();
  setText(find("mask-status"), `${current ? "Painting" : "Photograph"}: ${summary(layers[current])}.`);
}

// --- sending ------------------------------------------------------------------------------------

// What is wrong with the regions as a whole, or "".
function problem(inPhotograph, keeps) {
  const missing = layers.slice(1).map((_, index) => index + 1).filter((each) => !inPhotograph.includes(each));
  if (single()) {
    const lonely = [...layers[1].counts().keys()].find((each) => !inPhotograph.includes(each));
    if (lonely) return `Region ${lonely} is painted over the painting only: paint it over the photograph, too, or erase it.`;
  } else if (inPhotograph.length && missing.length) {
    return `Region ${missing[0]} is not painted over the photograph: with several paintings, each needs one.`;
  } else if (!inPhotograph.length && layers.slice(1).some((layer) => layer.counts().size)) {
    return "Paint the regions over the photograph, too.";
  }
  return inPhotograph.length || keeps ? "" : "Nothing is painted yet: paint over the photograph.";
}

async function use() {
  const [photograph, ...paintings] = layers, found = photograph.counts();
  const numbers = [...found.keys()].filter((each) => each !== KEEP).sort();
  const wrong = problem(numbers, found.has(KEEP));
  setText(find("error-mask"), wrong);
  if (wrong) return;
  find("mask-use").disabled = true;
  try {
    const sent = { content: [], styles: [], keep: null };
    for (const each of numbers) {
      const painting = paintings[single() ? 0 : each - 1];
      sent.content.push(await send(photograph, each));
      sent.styles.push(await send(painting, painting.counts().has(each) ? each : null));
    }
    if (found.has(KEEP)) sent.keep = await send(photograph, KEEP);
    ownSet().sent = sent;
    keep();
    find("mask-editor").close();
    showMasks();
    onChanged();
  } catch (error) {
    setText(find("error-mask"), error.message);
  } finally {
    find("mask-use").disabled = false;
  }
}

// Upload the cells of a number, or all of them for null; the ID.
async function send({ picture, width, height, cells }, each) {
  const file = await maskFile("mask.png", [width, height], [picture.width, picture.height], (cell) => each === null || cells[cell] === each);
  return (await upload(file)).id;
}
