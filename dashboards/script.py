"""The script of the project's pages: it unpacks plotly.js, draws the figures in the page's colours and sorts tables."""

from __future__ import annotations

JS = """
"use strict";
const { figures, ramp } = JSON.parse(document.getElementById("figures").textContent);
const night = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const printed = () => root.classList.contains("printed");
const dark = () => night.matches && !printed();
const colour = name => getComputedStyle(root).getPropertyValue(name).trim();
const PAPER = 670;  // CSS pixels of width on A4 and letter alike

function themed(layout, width, height) {
  const narrow = width < 560, ink = colour("--ink"), soft = colour("--soft"), grid = colour("--grid");
  const size = narrow ? 11 : 13;
  const axis = given => ({ automargin: true, gridcolor: grid, linecolor: colour("--line"), zeroline: false,
    tickcolor: colour("--line"), ticks: "outside", ticklen: 4, dividercolor: colour("--line"), ...given,
    title: { standoff: 10, font: { size, color: soft }, ...given.title }, fixedrange: narrow });
  const legend = { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom",
    font: { size: narrow ? 11 : 12 } };
  const { narrow: tight, ...wide } = layout;
  const given = { ...wide };
  for (const [key, changes] of Object.entries(narrow && tight || {})) given[key] = { ...wide[key], ...changes };
  const axes = Object.fromEntries(["xaxis", "yaxis", ...Object.keys(given).filter(key => /^[xy]axis[0-9]+$/.test(key))]
    .map(key => [key, axis(given[key] || {})]));
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, ...given,
    font: { family: getComputedStyle(document.body).fontFamily, size, color: ink },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: ink, size: 13 },
      align: "left", namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
    margin: given.margin || { l: 10, r: narrow ? 10 : 24, t: 10, b: 10 }, legend: { ...legend, ...given.legend },
    annotations: (given.annotations || []).map(note => ({ bgcolor: colour("--paper") + "b0", borderpad: 0, ...note,
      font: { color: soft, ...note.font } })),
    ...axes, ...(printed() ? { width, height, autosize: false } : {}) };
}

// Colours that follow the page are written as "--ink" or, with an opacity in hex, "--ink22".
function dyed(value) {
  const text = JSON.stringify(value).replace(/"--(ink|soft|grid|line|paper)([0-9a-f]{2})?"/g, (_, name, opacity) =>
    JSON.stringify(colour("--" + name) + (opacity || "")));
  return JSON.parse(text);
}

// Two blues of the palette are too dark for a dark page.
const LIGHTER = { "#0072B2": "#3d9ad6", "#56B4E9": "#a5daf7" };
const lighter = text => text.replace(/#0072B2|#56B4E9/g, shade => LIGHTER[shade]);

// On a dark page the colour scale is turned round, so that the best are always the most visible.
function turned(data) {
  const other = Object.fromEntries(ramp.map((shade, i) => [shade, ramp[ramp.length - 1 - i]]));
  return JSON.parse(lighter(JSON.stringify(data)).replace(/#[0-9a-f]{6}/g, shade => other[shade] ?? shade));
}

function painted(data) {
  const ink = colour("--ink"), halo = Array(4).fill("0 0 2px " + colour("--paper")).join();
  const fonts = { labelfont: { color: ink, size: 13 },
    tickfont: { color: ink, size: 11, shadow: halo },
    rangefont: { color: "rgba(0,0,0,0)", size: 1 } };
  return dyed(dark() ? turned(data) : data)
    .map(trace => trace.type === "parcoords" ? { ...trace, ...fonts } : trace);
}

function webgl() {
  try { return !!document.createElement("canvas").getContext("webgl"); } catch { return false; }
}

const flat = !webgl();

function drawn(name) {
  const place = document.getElementById(name), figure = figures[name];
  const config = { responsive: !printed(), displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false };
  const chosen = figure.forms ? figure.forms[+(place.dataset.form || 0)] : figure;
  const form = chosen.fallback && (flat || printed()) ? chosen.fallback : chosen;
  const width = !printed() ? place.clientWidth : place.closest(".facets") ? PAPER / 2 - 10 : PAPER;
  return Plotly.react(place, painted(form.data), dyed(themed(form.layout, width, place.clientHeight)), config)
    .then(() => { place.dataset.drawn = "yes"; }, error => { place.textContent = "This plot failed: " + error; });
}

const draw = () => Promise.all(Object.keys(figures).map(drawn));

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.key;
    const compare = (a, b) => {
      const p = key(a), q = key(b);
      if (p === undefined || q === undefined) return (p === undefined) - (q === undefined);  // no value: last
      const order = p !== "" && q !== "" && !isNaN(p) && !isNaN(q) ? p - q : p.localeCompare(q);
      return up ? order : -order;
    };
    body.append(...[...body.rows].sort(compare));
  }));
}

function choice(group) {
  const buttons = [...group.querySelectorAll("button")];
  buttons.forEach((button, i) => button.addEventListener("click", () => {
    buttons.forEach(other => other.setAttribute("aria-pressed", other === button));
    const place = document.getElementById(group.dataset.plot);
    place.dataset.form = i;
    drawn(place.id);
  }));
}

// plotly.js is carried compressed: a third of its size.
async function unpacked() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), char => char.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll(".switch").forEach(choice);
unpacked().then(draw).catch(error => {
  document.querySelectorAll(".plot").forEach(place => {
    place.textContent = "Plots need a browser from 2023 or later: " + error;
    place.style.height = "auto";
  });
});
night.addEventListener("change", () => window.Plotly && draw());
addEventListener("beforeprint", () => { root.classList.add("printed"); window.Plotly && draw(); });
addEventListener("afterprint", () => { root.classList.remove("printed"); window.Plotly && draw(); });
"""
