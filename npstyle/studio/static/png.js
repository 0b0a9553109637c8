// A mask as a PNG file of one bit a pixel, of the size of its picture: a canvas of that size may be too large.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

// White where inside(index) of a grid of columns x rows; each of its cells becomes a block of pixels.
export async function maskFile(name, [columns, rows], [width, height], inside) {
  const bytes = await deflated(scanlines(columns, rows, width, height, inside));
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header[8] = 1; // bit depth; all else is 0: gray, not interlaced
  const parts = [new Uint8Array(SIGNATURE), chunk("IHDR", header), chunk("IDAT", bytes), chunk("IEND", new Uint8Array())];
  return new File(parts, name, { type: "image/png" });
}

function scanlines(columns, rows, width, height, inside) {
  const stride = 1 + Math.ceil(width / 8), lines = new Uint8Array(stride * height); // a line begins with its filter, 0
  const column = Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * columns) / width));
  let previous = -1;
  for (let y = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * rows) / height);
    if (row === previous) lines.copyWithin(y * stride, (y - 1) * stride, y * stride);
    else for (let x = 0; x < width; x++) if (inside(row * columns + column[x])) lines[y * stride + 1 + (x >> 3)] |= 128 >> (x & 7);
    previous = row;
  }
  return lines;
}

async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function chunk(kind, data) {
  const bytes = new Uint8Array(12 + data.length), view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set([...kind].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(data, 8);
  let crc = 0xffffffff;
  for (let i = 4; i < 8 + data.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  view.setUint32(8 + data.length, ~crc >>> 0);
  return bytes;
}
