// What the studio's page and a report do alike: the slider before and after, and the command to copy.

import { find, setText } from "./dom.js";

export function preparePicture() {
  find("slider").addEventListener("input", () => find("frame").style.setProperty("--cut", `${100 - find("slider").value}%`));
  find("copy").addEventListener("click", async () => {
    find("command").select();
    await copy(find("command").value).catch(() => document.execCommand("copy"));
    setText(find("copy"), "Copied");
    setTimeout(() => setText(find("copy"), "Copy"), 2000);
  });
}

async function copy(text) {
  await navigator.clipboard.writeText(text); // there is no clipboard where a page is not trusted: an error, too
}
