"use strict";
// Facts come from strangers' files: they are set as text, never as markup.
const facts = JSON.parse(document.getElementById("facts").textContent);
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const SIDES = [["before", "CLIP"], ["after", "adapted"]];
const NUM_MINIS = 4;

const byId = (id) => document.getElementById(id);

function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

function makeOption(value, text) {
  const option = make("option", "", text);
  option.value = value;
  return option;
}

function arrow(before, after) {
  return [String(before), " ", make("i", "", "\u2192"), " ", String(after)];
}

// Pictures are decoded once their row comes near the screen.
const nearby = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    nearby.unobserve(target);
    target.fill();
  }
}, { rootMargin: "400px" });

function makeStrip(clip, name) {
  if (!pictures[clip]) return make("div", `${name} nopicture`, "no picture");
  const image = make("img", name);
  image.src = pictures[clip];
  image.alt = "";
  image.decoding = "async";
  return image;
}

function makeMinis(list) {
  const minis = make("span", "minis");
  minis.fill = () => {
    for (const { clip, hit } of list.slice(0, NUM_MINIS)) {
      const mini = pictures[clip] ? makeStrip(clip, "") : make("span");
      if (hit !== null) mini.classList.add(hit ? "right" : "wrong");
      mini.title = facts.clips[clip].id;
      minis.append(mini);
    }
  };
  nearby.observe(minis);
  return minis;
}

function describeLabel(clip) {
  const { label, truth } = facts.clips[clip];
  if (label === null) return null;
  return truth === null ? `${label} (no concept here)` : facts.names[truth];
}

function makeFigure(clip, ...caption) {
  return make("figure", "", makeStrip(clip, "strip"), make("figcaption", "", ...caption,
    make("br"), facts.clips[clip].id));
}

function makeRanked(entry, place, side, total) {
  const label = describeLabel(entry.clip);
  const parts = [make("b", "", `${place}`), ` \u00b7 cosine ${entry.cosine.toFixed(3)} \u00b7 concept `
    + `${entry.concept_place} of ${total} \u00b7 ${side === "before" ? "now" : "was"} place ${entry.other_place}`];
  if (label !== null) {
    const mark = entry.hit === null ? "" : entry.hit ? "\u2713 " : "\u2717 ";
    const name = entry.hit === null ? "" : entry.hit ? "hit" : "miss";
    parts.push(make("br"), make("span", name, mark + label));
  }
  return makeFigure(entry.clip, ...parts);
}

function makeSides(content, note) {
  const sides = make("div", "sides");
  if (note) sides.append(make("p", "text", note));
  for (const [side, title] of SIDES) {
    sides.append(make("div", "", make("h3", "", title), make("div", "clips", ...content(side))));
  }
  return sides;
}

function makeItem(name, cells, fill) {
  const item = make("details", `item ${name}`);
  item.append(make("summary", `row ${name}`, ...cells));
  item.addEventListener("toggle", () => {
    if (item.open && item.childElementCount === 1) item.append(fill());
  });
  return item;
}

// Concepts

const labelled = facts.clips.some(({ truth }) => truth !== null);
const change = (one) => one.hits_after - one.hits_before;
const ORDERS = [
  ["changed", "changed most", (a, b) => a.kept - b.kept || b.median_move - a.median_move],
  ["moved", "clips moved furthest", (a, b) => b.median_move - a.median_move],
  ["stayed", "changed least", (a, b) => b.kept - a.kept || a.median_move - b.median_move],
  ...(labelled ? [
    ["gained", "hits gained", (a, b) => change(b) - change(a)],
    ["lost", "hits lost", (a, b) => change(a) - change(b)],
  ] : []),
  ["more", "best for more clips now", (a, b) => (b.best_after - b.best_before) - (a.best_after - a.best_before)],
  ["fewer", "best for fewer clips now", (a, b) => (a.best_after - a.best_before) - (b.best_after - b.best_before)],
  ["name", "name", (a, b) => a.name.localeCompare(b.name)],
  ["vocabulary", "order in the vocabulary", (a, b) => a.row - b.row],
];
let space = facts.spaces[0];

function makeConcept(one) {
  const fill = make("div", "fill");
  fill.style.width = `${100 * one.kept / facts.num_top}%`;
  const about = make("small", "", ...(one.label === one.name ? [] : [`${one.label} \u00b7 `]), "best for ",
    ...arrow(one.best_before, one.best_after), " clips");
  const cells = [
    make("span", "", make("span", "name", one.name), about),
    make("span", "kept", make("span", "track", fill), `${one.kept} of ${facts.num_top}`),
    make("span", "hits number", ...(labelled ? arrow(one.hits_before, one.hits_after) : [])),
    makeMinis(one.before), makeMinis(one.after),
  ];
  cells[2].title = "clips of this label in the top list, before and after";
  cells[1].title = `clips in both lists; half of all listed clips moved ${one.median_move} places or more`;
  return makeItem("", cells, () => makeSides(
    (side) => one[side].map((entry, index) => makeRanked(entry, index + 1, side, space.num_concepts)),
    one.detail,
  ));
}

function matches(one, words) {
  const text = `${one.name} ${one.label} ${one.detail}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

function showConcepts() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const order = ORDERS.find(([key]) => key === byId("sort").value)[2];
  const found = space.concepts.filter((one) => matches(one, words)).sort(order);
  for (const one of found) one.item = one.item ?? makeConcept(one);
  byId("rows").replaceChildren(...found.map((one) => one.item));
  const all = space.concepts.length;
  byId("count").textContent = found.length < all ? `${found.length} of ${all}` : `${all} concepts`;
}

function startConcepts() {
  byId("sort").append(...ORDERS.map(([key, text]) => makeOption(key, text)));
  byId("sort").addEventListener("change", showConcepts);
  byId("search").addEventListener("input", showConcepts);
  if (facts.spaces.length > 1) {
    for (const one of facts.spaces) {
      const button = make("button", "", one.kind === "category" ? "names" : "descriptions");
      button.setAttribute("aria-pressed", String(one === space));
      button.addEventListener("click", () => {
        space = one;
        for (const other of byId("kinds").children) other.setAttribute("aria-pressed", String(other === button));
        showConcepts();
      });
      byId("kinds").append(button);
    }
  }
  showConcepts();
}

// Confusions

function makePair(titles, pair, count) {
  const said = SIDES.map(([side, title]) => {
    const cell = make("span", "number said", ...count(side));
    cell.dataset.side = title;
    return cell;
  });
  const cells = [make("span", "name", ...titles), make("span", "number about", pair.cosine.toFixed(2)), ...said];
  return makeItem("pair", cells, () => makeSides((side) => {
    const clips = pair[`clips_${side}`].map((clip) => {
      const { truth, [`best_${side}`]: best } = facts.clips[clip];
      const label = describeLabel(clip);
      return makeFigure(clip, "best ", make("b", "", facts.names[best]), ...(label === null ? [] : [" \u00b7 label ",
        make("span", truth === null ? "" : truth === best ? "hit" : "miss", label)]));
    });
    return clips.length ? clips : [make("span", "about", "none")];
  }));
}

function startConfusions() {
  byId("close").append(...facts.close_pairs.map((pair) => makePair(
    [pair.first, make("i", "", " / "), pair.second], pair,
    (side) => [String(pair[`ties_${side}`]), make("small", "", `${pair[`shared_${side}`]} in both lists`)],
  )));
  byId("taken")?.append(...facts.confusions.map((pair) => makePair(
    [pair.truth, make("i", "", " \u2192 "), pair.predicted], pair,
    (side) => [String(pair[side]), make("small", "", `of ${pair.num_truth}`)],
  )));
}

// Tabs and keys

const tabs = [...document.querySelectorAll("#tabs a")];

function showTab() {
  const known = tabs.find((tab) => tab.hash === location.hash) ?? tabs[0];
  for (const tab of tabs) {
    byId(tab.hash.slice(2)).hidden = tab !== known;
    if (tab === known) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  if (known.hash === "#/map") startMap();
}

function moveFocus(step) {
  const rows = [...document.querySelectorAll("section:not([hidden]) .item > summary")];
  const place = rows.indexOf(document.activeElement);
  rows[place < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, place + step))]?.focus();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input[type=search], select");
  const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  if (event.key === "Escape" && typing) event.target.blur();
  else if (typing && !(event.key === "ArrowDown" && event.target.id === "search")) return;
  else if (event.key === "/") {
    location.hash = "#/concepts";
    showTab();
    byId("search").focus();
  } else if (step) moveFocus(step);
  else if (tabs[Number(event.key) - 1]) location.hash = tabs[Number(event.key) - 1].hash;
  else return;
  event.preventDefault();
}

document.body.classList.add("tabbed");
startConcepts();
startConfusions();
addEventListener("hashchange", showTab);
addEventListener("keydown", onKey);
