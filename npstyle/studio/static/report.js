// A report: a page in one file, which holds this, what it imports, and all that it shows.

import { draw } from "./chart.js";
import { find } from "./dom.js";
import { preparePicture } from "./picture.js";

const curve = JSON.parse(find("points").textContent);

function drawCurve() {
  find("curves").hidden = curve.length === 0;
  if (curve.length) draw(find("chart"), find("legend"), curve, 0);
}

preparePicture();
drawCurve();
window.addEventListener("resize", drawCurve);
