// What is painted over one picture: a number for each of its cells, 0 for none, and the strokes that change them.

const SIMILAR = 32; // of 255, in each color: the farthest that a fill of similar colors goes from where it begins
const MAX_UNDO = 30;

export class Layer {
  // A layer has the cells of the reduced picture that is shown in the page.
  static async of(picture) {
    const image = await loaded(`/api/pictures/${picture.id}`);
    const canvas = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return new Layer(picture, image, context.getImageData(0, 0, canvas.width, canvas.height).data);
  }

  constructor(picture, image, colors) {
    [this.picture, this.image, this.colors] = [picture, image, colors];
    [this.width, this.height] = [image.naturalWidth, image.naturalHeight];
    this.cells = new Uint8Array(this.width * this.height);
    this.earlier = [];
  }

  // Take over a mask that was sent before, as cells of this number; all of a picture is none.
  async add(id, number) {
    const image = await loaded(`/api/pictures/${id}`);
    const canvas = Object.assign(document.createElement("canvas"), { width: this.width, height: this.height });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, this.width, this.height);
    const { data } = context.getImageData(0, 0, this.width, this.height);
    const inside = this.cells.map((_, index) => data[4 * index] >= 128);
    if (inside.every((one) => one)) return;
    inside.forEach((one, index) => {
      if (one) this.cells[index] = number;
    });
  }

  // The cells from left to right and top to bottom, as a text may hold them: number and count, in turn.
  runs() {
    const found = [];
    for (let from = 0, to = 0; from < this.cells.length; from = to) {
      while (to < this.cells.length && this.cells[to] === this.cells[from]) to++;
      found.push(this.cells[from], to - from);
    }
    return found;
  }

  takeRuns(runs) {
    for (let index = 0, from = 0; index < runs.length; from += runs[index + 1], index += 2) {
      this.cells.fill(runs[index], from, from + runs[index + 1]);
    }
  }

  remember() {
    this.earlier = [...this.earlier.slice(1 - MAX_UNDO), this.cells.slice()];
  }

  undo() {
    const found = this.earlier.pop();
    if (found) this.cells = found;
    return found !== undefined;
  }

  fillAll(number) {
    this.remember();
    this.cells.fill(number);
  }

  // A stroke of a round brush from one point to another.
  stroke([x0, y0], [x1, y1], radius, number) {
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, radius / 2)));
    for (let step = 0; step <= steps; step++) {
      this.dot(x0 + ((x1 - x0) * step) / steps, y0 + ((y1 - y0) * step) / steps, radius, number);
    }
  }

  dot(x, y, radius, number) {
    const top = Math.max(0, Math.floor(y - radius)), bottom = Math.min(this.height - 1, Math.ceil(y + radius));
    for (let row = top; row <= bottom; row++) {
      const half = Math.sqrt(Math.max(0, radius ** 2 - (row + 0.5 - y) ** 2));
      const left = Math.max(0, Math.round(x - half)), right = Math.min(this.width, Math.round(x + half));
      if (left < right) this.cells.fill(number, row * this.width + left, row * this.width + right);
    }
  }

  // Fill what is connected with a point: up to what is painted, or with similar colors only.
  fill([x, y], number, similar) {
    const start = Math.floor(y) * this.width + Math.floor(x), was = this.cells[start];
    if (was === number) return;
    const color = this.colors.slice(4 * start, 4 * start + 3);
    const near = (cell) => color.every((value, part) => Math.abs(this.colors[4 * cell + part] - value) <= SIMILAR);
    const waiting = [start];
    while (waiting.length) {
      const cell = waiting.pop();
      if (this.cells[cell] !== was || (similar && !near(cell))) continue;
      this.cells[cell] = number;
      const column = cell % this.width;
      if (column > 0) waiting.push(cell - 1);
      if (column < this.width - 1) waiting.push(cell + 1);
      if (cell >= this.width) waiting.push(cell - this.width);
      if (cell < this.cells.length - this.width) waiting.push(cell + this.width);
    }
  }

  // How many cells each number has.
  counts() {
    const found = new Map();
    for (const number of this.cells) if (number) found.set(number, (found.get(number) ?? 0) + 1);
    return found;
  }

  // The picture with what is painted over it; names stand in the middle, so that colors are not all that tells.
  draw(canvas, colors, names) {
    if (canvas.width !== this.width || canvas.height !== this.height) Object.assign(canvas, { width: this.width, height: this.height });
    this.over ??= Object.assign(document.createElement("canvas"), { width: this.width, height: this.height });
    const image = new ImageData(this.width, this.height), pixels = new Uint32Array(image.data.buffer);
    const packed = colors.map((color) => new Uint32Array(Uint8Array.from([...color, 150]).buffer)[0]);
    const sums = names.map(() => [0, 0, 0]);
    for (let y = 0, cell = 0; y < this.height; y++) {
      for (let x = 0; x < this.width; x++, cell++) {
        const number = this.cells[cell];
        if (number === 0) continue;
        pixels[cell] = packed[number];
        const sum = sums[number];
        sum[0] += x;
        sum[1] += y;
        sum[2]++;
      }
    }
    this.over.getContext("2d").putImageData(image, 0, 0);
    const context = canvas.getContext("2d");
    context.drawImage(this.image, 0, 0);
    context.drawImage(this.over, 0, 0);
    const size = Math.round(Math.max(this.width, this.height) / 20);
    Object.assign(context, { font: `bold ${size}px system-ui, sans-serif`, textAlign: "center", textBaseline: "middle" });
    Object.assign(context, { lineWidth: size / 5, lineJoin: "round", strokeStyle: "#000", fillStyle: "#fff" });
    sums.forEach(([x, y, count], number) => {
      if (count === 0) return;
      context.strokeText(names[number], x / count, y / count);
      context.fillText(names[number], x / count, y / count);
    });
  }
}

function loaded(address) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("This picture is not there any more; choose it again."));
    image.src = address;
  });
}
