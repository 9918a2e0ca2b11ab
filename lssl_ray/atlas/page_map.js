
// The map: nothing is drawn before someone looks.

const SVG = "http://www.w3.org/2000/svg";
const MAP_SIZE = 560, MAP_MARGIN = 22, REACH = 14;
const COLOURS = ["#4e79a7", "#f28e2b", "#e15759", "#59a14f", "#b07aa1", "#edc948", "#17a2b8", "#ff9da7",
  "#9c755f", "#1b9e77", "#7570b3", "#d37295", "#a0cbe8", "#8cd17d", "#b6992d", "#fabfd2"];
const OTHERS = "#9aa5b1";
let panels = null;
let pointedOut = null;

function draw(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const scale = (share) => MAP_MARGIN + share * (MAP_SIZE - 2 * MAP_MARGIN);

function groupOf(clip, side) {
  const { truth, [`best_${side}`]: best } = facts.clips[clip];
  return byId("colour").value === "label" ? truth : best;
}

function chooseColours() {
  const counts = new Map();
  for (const clip of facts.map.clips) {
    for (const [side] of SIDES) {
      const group = groupOf(clip, side);
      if (group !== null) counts.set(group, (counts.get(group) ?? 0) + 1);
    }
  }
  const groups = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([group]) => group);
  return new Map(groups.slice(0, COLOURS.length).map((group, index) => [group, COLOURS[index]]));
}

function drawPanel(side, title) {
  const svg = draw("svg", { viewBox: `0 0 ${MAP_SIZE} ${MAP_SIZE}`, role: "img", "aria-label": `Map of clips, ${title}` });
  const points = facts.map[side].map(([x, y]) => [scale(x), scale(1 - y)]);
  const radius = points.length > 400 ? 3.4 : 4.6;
  const dots = points.map(([cx, cy]) => draw("circle", { cx, cy, r: radius }));
  const concepts = facts.map.concepts.map((one) => ({ row: one.row, x: scale(one[side][0]), y: scale(1 - one[side][1]) }));
  const marks = concepts.map(({ x, y }) => draw("path", { class: "concept", d: `M${x} ${y - 5.5}l5.5 5.5l-5.5 5.5l-5.5-5.5z` }));
  const texts = draw("g", {});
  const ring = draw("circle", { class: "ring", r: 8, visibility: "hidden" });
  svg.append(...dots, ...marks, texts, ring);
  const panel = { side, svg, points, dots, concepts, marks, texts, ring };
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, (event) => onPoint(panel, event));
  svg.addEventListener("pointerleave", hideCard);
  svg.addEventListener("click", () => { if (panel.near?.row !== undefined) openConcept(panel.near.row); });
  byId("maps").append(make("div", "", make("h3", "", title), svg));
  return panel;
}

function openConcept(row) {
  location.hash = "#/concepts";
  byId("search").value = facts.names[row];
  showConcepts();
}

// Names that would cover an earlier one are left out; concepts of most clips come first.
function drawTexts(panel) {
  const counts = new Map();
  for (const { [`best_${panel.side}`]: best } of facts.clips) counts.set(best, (counts.get(best) ?? 0) + 1);
  const order = [...panel.concepts].sort((a, b) => (counts.get(b.row) ?? 0) - (counts.get(a.row) ?? 0));
  const placed = [];
  panel.texts.replaceChildren();
  for (const { row, x, y } of order) {
    if (pointedOut !== null ? !pointedOut.has(row) : !byId("texts").checked) continue;
    const name = facts.names[row].length > 28 ? `${facts.names[row].slice(0, 26)}..` : facts.names[row];
    const width = 6.9 * name.length, left = x + 9 + width > MAP_SIZE ? x - 9 - width : x + 9;
    const box = [left, y - 8, left + width, y + 8];
    if (placed.some((one) => box[0] < one[2] && one[0] < box[2] && box[1] < one[3] && one[1] < box[3])) continue;
    placed.push(box);
    panel.texts.append(draw("text", { x: left, y: y + 4 }, name));
  }
}

function paint() {
  const colours = chooseColours();
  for (const panel of panels) {
    panel.dots.forEach((dot, index) => {
      const group = groupOf(facts.map.clips[index], panel.side);
      dot.setAttribute("fill", colours.get(group) ?? OTHERS);
      dot.classList.toggle("dim", pointedOut !== null && !pointedOut.has(group));
    });
    panel.marks.forEach((mark, index) => mark.classList.toggle("dim", pointedOut !== null && !pointedOut.has(panel.concepts[index].row)));
    drawTexts(panel);
  }
  const chips = [...colours].map(([group, colour]) => {
    const chip = make("button", "", facts.names[group]);
    chip.style.setProperty("--dot", colour);
    chip.setAttribute("aria-pressed", String(pointedOut?.size === 1 && pointedOut.has(group)));
    chip.addEventListener("click", () => {
      pointedOut = chip.getAttribute("aria-pressed") === "true" ? null : new Set([group]);
      byId("find").value = "";
      paint();
    });
    return chip;
  });
  const hasOthers = facts.map.clips.some((clip) => SIDES.some(([side]) => !colours.has(groupOf(clip, side))));
  const others = make("span", "about", hasOthers ? "grey: others" : "");
  byId("legend").replaceChildren(...chips, others);
}

function findNear(panel, event) {
  const box = panel.svg.getBoundingClientRect();
  const zoom = MAP_SIZE / box.width;
  const [x, y] = [(event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom];
  let near = null, nearest = REACH * Math.max(1, zoom);
  const consider = (distance, found) => { if (distance < nearest) [nearest, near] = [distance, found]; };
  panel.points.forEach(([px, py], index) => consider(Math.hypot(px - x, py - y), { index }));
  // A name is easier to find than a dot below it.
  panel.concepts.forEach((one) => consider(Math.hypot(one.x - x, one.y - y) - 3, { row: one.row }));
  return near;
}

function onPoint(panel, event) {
  panel.near = findNear(panel, event);
  if (panel.near === null) return hideCard();
  const { index, row } = panel.near;
  const card = byId("card");
  if (row !== undefined) {
    card.replaceChildren(make("b", "", facts.names[row]), make("div", "about", "a concept; click for its clips"));
  } else {
    const clip = facts.map.clips[index];
    const { id, best_before: before, best_after: after } = facts.clips[clip];
    const label = describeLabel(clip);
    const lines = [`CLIP: ${facts.names[before]}`, `adapted: ${facts.names[after]}`, ...(label === null ? [] : [`label: ${label}`])];
    card.replaceChildren(makeStrip(clip, "strip"), ...lines.map((line) => make("div", "text", line)), make("div", "about text", id));
  }
  for (const one of panels) {
    const point = index === undefined ? null : one.points[index];
    one.ring.setAttribute("visibility", point ? "visible" : "hidden");
    if (point) { one.ring.setAttribute("cx", point[0]); one.ring.setAttribute("cy", point[1]); }
  }
  card.hidden = false;
  const { width, height } = card.getBoundingClientRect();
  card.style.left = `${Math.max(8, Math.min(event.clientX + 16, innerWidth - width - 8))}px`;
  card.style.top = `${event.clientY + 18 + height > innerHeight ? Math.max(8, event.clientY - height - 14) : event.clientY + 18}px`;
}

function hideCard() {
  byId("card").hidden = true;
  for (const panel of panels ?? []) panel.ring.setAttribute("visibility", "hidden");
}

function onFind() {
  const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = facts.names.map((name, row) => [name.toLowerCase(), row]);
  pointedOut = words.length ? new Set(rows.filter(([name]) => words.every((word) => name.includes(word))).map(([, row]) => row)) : null;
  paint();
}

function startMap() {
  if (panels !== null) return;
  byId("colour").append(...(labelled ? [makeOption("label", "by label")] : []), makeOption("best", "by best concept"));
  panels = SIDES.map(([side, title]) => drawPanel(side, title));
  byId("colour").addEventListener("change", paint);
  byId("texts").addEventListener("change", paint);
  byId("find").addEventListener("input", onFind);
  paint();
}

showTab();
