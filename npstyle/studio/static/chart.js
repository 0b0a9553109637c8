// Curves of the loss and its terms, on a logarithmic scale, as SVG.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 240, LEFT = 56, RIGHT = 8, TOP = 8, BOTTOM = 24;
const MAX_POINTS = 400; // of a curve; more can't be seen
// What parts of the loss are called; those of a network's layers are added up.
const NAMES = { content: "photograph", style: "painting", total_variation: "smoothness", edges: "edges" };

export function draw(place, legend, points, iterations) {
  const kinds = points.map((point) => ({ loss: point.loss, ...sums(point.terms) }));
  const names = Object.keys(kinds.at(-1) ?? {}).filter((name) => kinds.some((kind) => kind[name] > 0));
  const found = new Map(points.map((point, index) => [point, kinds[index]]));
  const value = (point, name) => found.get(point)[name] ?? 0;
  const WIDTH = Math.max(280, Math.min(960, place.clientWidth || 640)); // its own pixels, so that words stay readable
  const values = points.flatMap((point) => names.map((name) => value(point, name))).filter((each) => each > 0);
  if (values.length === 0) {
    place.replaceChildren();
    legend.replaceChildren();
    return;
  }
  const top = Math.ceil(Math.log10(values.reduce((a, b) => Math.max(a, b))));
  const lowest = Math.floor(Math.log10(values.reduce((a, b) => Math.min(a, b))));
  const bottom = Math.min(top - 1, Math.max(lowest, top - 6)); // what is a millionth of the largest plays no part
  const last = Math.max(iterations, points.at(-1).iteration, 2);
  const x = (iteration) => LEFT + ((iteration - 1) / (last - 1)) * (WIDTH - LEFT - RIGHT);
  const y = (number) => {
    const height = (Math.log10(number) - bottom) / (top - bottom);
    return HEIGHT - BOTTOM - Math.min(1, Math.max(0, height)) * (HEIGHT - TOP - BOTTOM);
  };
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const now = points.at(-1);
  svg.setAttribute("aria-label", `The loss after ${now.iteration} of ${last} iterations is ${now.loss.toPrecision(3)}.`);
  for (let power = bottom; power <= top; power++) {
    svg.append(node("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(10 ** power), y2: y(10 ** power) }));
    svg.append(label(LEFT - 8, y(10 ** power) + 4, "end", power >= -2 && power <= 3 ? String(10 ** power) : `1e${power}`));
  }
  points.forEach((point, index) => {
    if (index && point.level !== points[index - 1].level) {
      const at = x(point.iteration);
      svg.append(node("line", { class: "level", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
    }
  });
  svg.append(label(LEFT, HEIGHT - 6, "start", "iteration 1"), label(WIDTH - RIGHT, HEIGHT - 6, "end", String(last)));
  const step = Math.ceil(points.length / MAX_POINTS);
  const drawn = points.filter((_, index) => index % step === 0 || index === points.length - 1);
  names.forEach((name, index) => {
    const parts = drawn.filter((point) => value(point, name) > 0).map((point) => `${x(point.iteration).toFixed(1)} ${y(value(point, name)).toFixed(1)}`);
    if (parts.length) svg.append(node("path", { class: `line-${index % 5}`, d: `M${parts.join("L")}` }));
  });
  place.replaceChildren(svg);
  legend.replaceChildren(
    ...names.map((name, index) => {
      const item = document.createElement("li");
      item.className = `line-${index % 5}`;
      item.textContent = `${name === "loss" ? "loss" : (NAMES[name] ?? name)} ${value(now, name).toPrecision(3)}`;
      return item;
    }),
  );
}

function sums(terms) {
  const found = {};
  for (const [name, number] of Object.entries(terms)) {
    const kind = name.split("/")[0];
    found[kind] = (found[kind] ?? 0) + number;
  }
  return found;
}

function node(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, text] of Object.entries(attributes)) element.setAttribute(key, text);
  return element;
}

function label(x, y, anchor, text) {
  const element = node("text", { x, y, "text-anchor": anchor });
  element.textContent = text;
  return element;
}
