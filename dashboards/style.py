"""The style of the project's pages: light and dark, from phone to desktop, and on paper."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --paper: #fdfdfb; --ink: #1c1f23; --soft: #5c646d; --line: #e2e3df; --card: #ffffff;
  --accent: #0072b2; --grid: #ebebe7; --tint: #eef5fa; --strong: #0b5c8c; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8ea; --soft: #9aa3ac; --line: #2d333a;
  --card: #1b1f24; --accent: #6bb7e6; --grid: #2a3037; --tint: #1d2a35; --strong: #8fcbf0; } }
:root.printed { color-scheme: light; --paper: #ffffff; --ink: #000000; --soft: #444444; --line: #cccccc;
  --card: #ffffff; --accent: #00567f; --grid: #e6e6e6; --tint: #f2f2f2; --strong: #00567f; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header > div, footer { max-width: 1160px; margin: 0 auto; padding: 0 28px; }
header { border-top: 5px solid var(--accent); padding-top: 22px; }
h1 { font-size: 2.1rem; line-height: 1.15; margin: 0; letter-spacing: -.02em; overflow-wrap: anywhere; }
.name { color: var(--soft); font-size: 14px; margin: 0 0 10px; overflow-wrap: anywhere; }
.name b { color: var(--ink); font-weight: 650; }
.name code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
code, pre { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; margin: 10px 0;
  overflow-x: auto; }
.badge { display: inline-block; font-size: 13px; font-weight: 650; border: 1.5px solid var(--strong);
  color: var(--strong); border-radius: 99px; padding: 1px 12px; margin: 0 0 8px; }
.badge.none, .badge.open { border-color: var(--soft); color: var(--soft); }
.verdict h1 { max-width: 42ch; text-wrap: balance; }
.reading { margin: 12px 0 0; max-width: 86ch; }
.reading p { margin: 0 0 .35em; }
.reading p:first-child { font-size: 1.12rem; line-height: 1.5; }
.fine { color: var(--soft); font-size: 14.5px; max-width: 110ch; margin: 6px 0 0; }
.hero { margin: 14px 0 0; }
.hero h3 { font-size: 14.5px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 18px 0 0; padding: 10px 0; font-size: 14px;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
nav a { color: var(--accent); text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px; margin: 26px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px 13px; }
.tile dt { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.tile .figure { font-size: 1.75rem; font-weight: 650; letter-spacing: -.02em; margin: 0; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile .note { color: var(--soft); font-size: 13px; margin: 2px 0 0; line-height: 1.4; }
.summary { display: grid; grid-template-columns: 3fr 2fr; gap: 12px 40px; }
.summary p { margin: 0 0 .8em; }
.summary aside { color: var(--soft); font-size: 14.5px; border-left: 3px solid var(--line); padding-left: 18px; }
.summary aside p:last-child { margin-bottom: 0; }
section { margin: 44px 0 0; scroll-margin-top: 12px; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 0 0 4px; }
h3 { font-size: 14px; font-weight: 600; margin: 0 0 2px; }
.caption { color: var(--soft); font-size: 14.5px; max-width: 82ch; margin: 0 0 12px; }
.nothing { color: var(--soft); background: var(--card); border: 1px dashed var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 8px 0 0; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
.facets { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 14px 18px; }
.facets > * { min-width: 0; }
.plot { width: 100%; }
.plothead { display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between; gap: 4px 16px;
  margin: 0 0 4px; }
.switch { display: inline-flex; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.switch button { all: unset; cursor: pointer; font-size: 13px; padding: 3px 12px; color: var(--soft);
  box-sizing: border-box; min-height: 30px; display: flex; align-items: center; }
.switch button:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; border-radius: 8px; }
.switch button[aria-pressed="true"] { background: var(--tint); color: var(--ink); font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
.sortable thead th { padding: 0; }
.tight th, .tight td { padding-left: 8px; padding-right: 8px; }
.wrapped td { white-space: normal; }
th button { all: unset; cursor: pointer; padding: 6px 12px; display: block; width: 100%; box-sizing: border-box; }
th button:hover, th button:focus-visible { color: var(--accent); }
th[aria-sort] { color: var(--ink); }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
th.words, td.words { text-align: left; }
td.main { font-weight: 650; }
tbody tr:hover { background: var(--tint); }
.first tbody tr:first-child { background: var(--tint); }
.grid td, .grid th { text-align: center; vertical-align: top; padding: 7px 8px; }
.grid th[scope="row"] { text-align: left; white-space: normal; border-bottom: 1px solid var(--line); color: var(--ink);
  vertical-align: middle; }
.grid td b { display: block; font-size: 15px; font-weight: 650; }
.grid td small { display: block; color: var(--soft); font-size: 12px; line-height: 1.35; }
.grid td.lucky b { font-weight: 400; color: var(--soft); }
.grid td.lucky b::before { content: "\\25CB\\00A0"; }
.grid td.best { background: var(--tint); }
.grid td.printed b { font-weight: 400; font-style: italic; }
.grid .group { border-left: 1px solid var(--line); }
.tall { display: none; }
.tall th { white-space: normal; }
details { margin: 14px 0 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14.5px; padding: 4px 0; }
dl.about { display: grid; grid-template-columns: max-content 1fr; gap: 5px 24px; font-size: 14.5px; margin: 12px 0 0; }
dl.about dt { color: var(--soft); }
dl.about dd { margin: 0; overflow-wrap: anywhere; }
.scale { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 12px; font-size: 13px; color: var(--soft);
  margin: 0 0 14px; font-variant-numeric: tabular-nums; }
.ramp { position: relative; width: min(340px, 100%); height: 32px; }
.ramp i { position: absolute; inset: 0 0 20px; border-radius: 3px; }
@media (prefers-color-scheme: dark) { :root:not(.printed) .ramp i { transform: scaleX(-1); } }
.ramp span { position: absolute; bottom: 0; transform: translateX(-50%); line-height: 18px; }
footer { color: var(--soft); font-size: 13px; margin-top: 56px; padding-top: 16px; padding-bottom: 40px; }
@media (max-width: 640px) { main, header > div, footer { padding-left: 16px; padding-right: 16px; }
  header { padding-top: 14px; } h1 { font-size: 1.5rem; } .tiles { grid-template-columns: 1fr 1fr; gap: 10px; }
  .name { font-size: 13px; margin-bottom: 8px; } .name code { font-size: 11.5px; }
  .reading { margin-top: 8px; font-size: 15px; } .reading p:first-child { font-size: 1rem; }
  .tile { padding: 11px 13px; } .tile .figure { font-size: 1.35rem; } dl.about { grid-template-columns: 1fr; gap: 0; }
  dl.about dd { margin: 0 0 9px; } th button, td { padding-left: 8px; padding-right: 8px; } section { margin-top: 34px;
  } .summary { grid-template-columns: 1fr; }
  nav { flex-wrap: nowrap; overflow-x: auto; } }
@media screen and (max-width: 960px) { .wide { display: none; } .tall { display: block; } }
@page { margin: 14mm; }
@media print { :root { scroll-behavior: auto; } body { font-size: 11pt; } nav, details:not([open]), .switch,
  .modebar-container { display: none !important; } main, header > div, footer { max-width: none; padding: 0; }
  header { border-top-width: 3px; padding-top: 8px; } section { margin-top: 22px; } .scroll { overflow: visible; }
  h2, h3, .caption { break-after: avoid; break-inside: avoid; }
  .plot, .tile, tr, .nothing { break-inside: avoid; } table { font-size: 8.5pt; }
  th, td, th button { padding: 3px 4px; white-space: normal; } .sortable th { overflow-wrap: anywhere; }
  .grid td, .grid th { padding: 3px 2px; } .grid td { white-space: nowrap; }
  .grid td b { font-size: 9.5pt; } .grid td small { font-size: 7pt; } pre { white-space: pre-wrap; }
  .plot { max-width: 670px; min-width: 0 !important; } .facets { grid-template-columns: 1fr 1fr; } }
"""
