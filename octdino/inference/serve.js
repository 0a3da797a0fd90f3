// Dropped and chosen files are sent one after the other; each answer becomes a card. Text from files and from the
// server enters the page as text only.
"use strict";

const byId = (id) => document.getElementById(id);
const [drop, choose, work, bar, said, remove, results] =
  ["drop", "choose", "work", "done", "status", "remove", "results"].map(byId);
const MOST_BYTES = Number(document.body.dataset.mostBytes);
const RETRIES = 60; // while other requests are answered

function make(tag, values = {}, ...children) {
  const { style, ...others } = values;
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(others)) {
    if (name in element && !name.startsWith("aria-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  Object.assign(element.style, style);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const two = (value) => value.toFixed(2);
const percent = (value) => `${(100 * value).toFixed(1)}%`;

// One label with its button, bar and probability; `press` is null where there is no class map.
function labelRow(answer, index, press) {
  const name = answer.labels[index];
  const threshold = answer.thresholds[index];
  const button = press && make("button", { type: "button", textContent: name, title: `Class map of ${name}`,
    "aria-pressed": "false", onclick: () => press(index) });
  const term = make("dt", {}, button ?? name);
  const fill = make("i");
  const mark = threshold === null ? null : make("b", { style: { left: percent(threshold) } });
  const track = make("dd", { className: "bar", "aria-hidden": "true" }, fill, mark);
  const number = make("dd");
  const show = (scan) => {
    const called = scan.calls[index];
    term.classList.toggle("called", called);
    number.classList.toggle("called", called);
    fill.style.width = percent(scan.probabilities[index]);
    const words = [called ? "called" : "not called", ...(threshold === null ? [] : [`threshold ${two(threshold)}`])];
    number.replaceChildren(two(scan.probabilities[index]), make("span", { className: "sr", textContent: `, ${words.join(", ")}` }));
  };
  return { parts: [term, track, number], button, show };
}

// A scan with its class maps, labels, warning and nearest scans; show(scan) puts another B-scan in its place.
function scanView(answer, name) {
  const picture = make("img", { alt: "" });
  const layer = make("img", { alt: "", hidden: true });
  const warning = make("p", { className: "flag", hidden: true });
  const near = make("div");
  let scan = null;
  let pressed = null;
  const hasMaps = answer.files[0].scans[0].overlays !== null;
  const press = (index) => {
    pressed = pressed === index ? null : index;
    showLayer();
  };
  const rows = answer.labels.map((_, index) => labelRow(answer, index, hasMaps ? press : null));
  function showLayer() {
    rows.forEach((row, index) => row.button?.setAttribute("aria-pressed", String(index === pressed)));
    layer.hidden = pressed === null;
    if (pressed !== null) layer.src = scan.overlays[pressed];
    const where = scan.frame === null ? "" : `, B-scan ${scan.frame}`;
    picture.alt = `${name}${where}${pressed === null ? "" : `, with the class map of ${answer.labels[pressed]}`}`;
  }
  const show = (next) => {
    scan = next;
    picture.src = scan.picture;
    warning.hidden = !scan.flagged;
    warning.textContent = `Unlike the training scans (${scan.out_of_distribution.toFixed(1)} times the accepted distance): do not rely on the calls.`;
    rows.forEach((row) => row.show(scan));
    near.replaceChildren(...nearest(scan.neighbors));
    showLayer();
  };
  const list = make("dl", {}, ...rows.flatMap((row) => row.parts));
  return { parts: [make("div", { className: "stack" }, picture, layer), warning, list, near], show };
}

function nearest(neighbors) {
  if (!neighbors?.length) return [];
  const figures = neighbors.map((one, index) => make("figure", {},
    one.picture ? make("img", { src: one.picture, alt: `Nearest scan ${index + 1}` }) : make("p", { className: "quiet", textContent: "The file is gone." }),
    make("figcaption", {}, make("span", { className: "caption", textContent: one.caption, title: one.caption }),
      make("span", { className: "quiet", textContent: two(one.similarity) }))));
  return [make("h3", { textContent: "Most similar scans of the gallery (cosine similarity)" }), make("div", { className: "near" }, ...figures)];
}

function scanCard(answer, file) {
  const view = scanView(answer, file.file);
  view.show(file.scans[0]);
  const [stack, ...rest] = view.parts;
  return make("article", { className: file.scans[0].flagged ? "flagged" : "" }, stack, make("h2", { textContent: file.file }), ...rest);
}

function volumeCard(answer, file) {
  const view = scanView(answer, file.file);
  const frames = file.scans.map((scan) => scan.frame);
  const slider = make("input", { type: "range", min: "0", max: String(frames.length - 1), step: "1", "aria-label": "B-scan" });
  const output = make("output");
  const { table, mark } = summaryTable(answer, file, (frame) => {
    slider.value = String(frames.indexOf(frame));
    showFrame();
  });
  function showFrame() {
    const scan = file.scans[Number(slider.value)];
    output.textContent = `B-scan ${scan.frame} (${frames[0]} to ${frames.at(-1)})`;
    slider.setAttribute("aria-valuetext", `B-scan ${scan.frame}`);
    view.show(scan);
    mark(Number(slider.value));
  }
  slider.addEventListener("input", showFrame);
  const [stack, ...rest] = view.parts;
  const flagged = file.summary[0].n_flagged;
  const count = `${file.scans.length} B-scan${file.scans.length === 1 ? "" : "s"}${flagged ? `, ${flagged} of them unlike the training scans (pale) and left out of the figures` : ""}`;
  const left = make("div", {}, stack, make("div", { className: "slider" }, slider, output), ...rest);
  const right = make("div", {}, make("p", { className: flagged ? "flag" : "quiet", textContent: `${count}.` }), table, refusedList(file));
  slider.value = String(Math.floor(frames.length / 2));
  showFrame();
  return make("article", { className: `volume${flagged ? " flagged" : ""}` }, make("h2", { textContent: file.file }), make("div", { className: "halves" }, left, right));
}

// One row per label; the highest probability is a button that shows its B-scan.
function summaryTable(answer, file, show) {
  const profiles = [];
  const rows = file.summary.map((row, index) => {
    const cells = file.scans.map((scan) => make("i", {
      className: `${scan.calls[index] ? "called" : ""}${scan.flagged ? " out" : ""}`, style: { height: percent(scan.probabilities[index]) } }));
    profiles.push(cells);
    const highest = row.highest_probability === null ? "–" : make("button", { type: "button", textContent: two(row.highest_probability),
      title: `Show B-scan ${row.highest_frame}`, "aria-label": `${two(row.highest_probability)}, show B-scan ${row.highest_frame}`, onclick: () => show(row.highest_frame) });
    return make("tr", {}, make("th", { scope: "row", textContent: row.label, className: row.n_called ? "called" : "" }), make("td", {}, highest),
      make("td", { textContent: row.mean_probability === null ? "–" : two(row.mean_probability) }),
      make("td", { textContent: `${row.n_called} of ${row.n_scans - row.n_flagged}` }),
      make("td", {}, make("div", { className: "profile", "aria-hidden": "true" }, ...cells)));
  });
  const heads = ["Label", "Highest", "Mean", "Called in", "All B-scans"].map((textContent) => make("th", { scope: "col", textContent }));
  const table = make("table", {}, make("caption", { textContent: "The volume: probability of each label over its B-scans" }),
    make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  const mark = (place) => profiles.forEach((cells) => cells.forEach((cell, at) => cell.classList.toggle("now", at === place)));
  return { table: make("div", { className: "scroll", role: "region", tabIndex: 0, "aria-label": "Summary of the volume" }, table), mark };
}

const frameOf = (one) => (one.frame === null ? "" : `B-scan ${one.frame}: `);
function refusedList(file) {
  if (!file.refused.length) return null;
  return make("div", {}, make("h3", { textContent: `Refused: ${file.refused.length}` }),
    make("ul", {}, ...file.refused.map((one) => make("li", { textContent: `${frameOf(one)}${one.reason}: ${one.detail}` }))));
}

function refusedCard(name, text) {
  return make("article", { className: "refused" }, make("h2", { textContent: name }), make("p", { className: "flag", textContent: text }));
}

function cardOf(answer) {
  const file = answer.files[0];
  if (!file.scans.length) return refusedCard(file.file, file.refused.map((one) => `${frameOf(one)}${one.detail}`).join("; ") || "no scan in the file");
  return file.scans.length + file.refused.length > 1 ? volumeCard(answer, file) : scanCard(answer, file);
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

// The card of one file; whatever goes wrong becomes a card, too.
async function sent(file) {
  if (file.size > MOST_BYTES) return refusedCard(file.name, `${Math.ceil(file.size / 2 ** 20)} MiB; expected at most ${MOST_BYTES / 2 ** 20}`);
  const body = new FormData();
  body.append("file", file, file.name);
  try {
    for (let tries = 0; ; tries += 1) {
      const response = await fetch("predict", { method: "POST", body });
      if (response.status === 503 && tries < RETRIES && response.headers.has("retry-after")) {
        await pause(Number(response.headers.get("retry-after")) || 2);
        continue;
      }
      const answer = await response.json();
      return response.ok ? cardOf(answer) : refusedCard(file.name, answer.error);
    }
  } catch {
    return refusedCard(file.name, "Not sent: it is no readable file, or the server has ended.");
  }
}

const waiting = [];
let total = 0;
let busy = false;
let round = 0; // grows when everything is removed

async function workOff() {
  busy = true;
  while (waiting.length) {
    const own = round;
    const finished = total - waiting.length;
    said.textContent = `Reading file ${finished + 1} of ${total} …`;
    bar.value = finished / total;
    const card = await sent(waiting[0]);
    if (own !== round) continue;
    waiting.shift();
    results.append(card);
  }
  busy = false;
  bar.value = 1;
  bar.hidden = true;
  said.textContent = total === 1 ? "1 file done." : `${total} files done.`;
}

function add(files) {
  if (!files.length) return;
  if (!busy) bar.hidden = false;
  waiting.push(...files);
  total += files.length;
  work.hidden = false;
  if (!busy) workOff();
}

choose.addEventListener("change", () => {
  add([...choose.files]);
  choose.value = ""; // so that the same file can be chosen again
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault(); // the browser would open the file instead of the page
  drop.classList.remove("over");
  add([...event.dataTransfer.files]);
});
remove.addEventListener("click", () => {
  round += 1;
  waiting.length = 0;
  total = 0;
  results.replaceChildren();
  work.hidden = true;
  choose.focus();
});
