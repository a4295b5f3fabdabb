// What pages gain from a script: they follow what happens, tables sort and filter without a new page, dialogs ask first.
// Every page works without it.
"use strict";

const main = document.getElementById("content");
const live = document.getElementById("live");
const EVERY_MS = 1000;

// -- a page is made anew by the server; only what differs is touched ------------------------------------------------

const keyOf = node => node.nodeType === 1 ? node.id || node.dataset.key || "" : "";

function attributes(old, fresh) {
  for (const { name, value } of fresh.attributes)
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
}

function morph(old, fresh) {
  if (old.isEqualNode(fresh) || old.dataset?.keep !== undefined && old.dataset.keep === fresh.dataset?.keep) return;
  attributes(old, fresh);
  const keyed = new Map([...old.children].filter(keyOf).map(node => [keyOf(node), node]));
  const known = keyed.size > 0;
  let here = old.firstChild;
  for (const node of [...fresh.childNodes]) {
    const key = keyOf(node);
    const alike = here && here.nodeName === node.nodeName && !keyOf(here);
    const match = key ? keyed.get(key) : alike ? here : null;
    if (!match) {
      if (known && node.nodeName === "TR") node.classList.add("fresh");
      old.insertBefore(node, here);
    } else {
      if (match === here) here = here.nextSibling;
      else old.insertBefore(match, here);
      if (match.nodeType === 1) morph(match, node);
      else if (match.data !== node.data) match.data = node.data;
    }
  }
  while (here) { const next = here.nextSibling; here.remove(); here = next; }
}

function put(source) {
  const fresh = document.createElement("main");
  fresh.append(...new DOMParser().parseFromString(source, "text/html").body.childNodes);
  for (const { name, value } of main.attributes) fresh.setAttribute(name, value);
  const focused = document.activeElement;
  morph(main, fresh);
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

let turn = 0, going = 0;

// What was asked for last is shown: an answer that others have overtaken is dropped.
async function fetched(address) {
  const mine = ++turn;
  const answer = await fetch(address, { headers: { "X-Part": "main", Accept: "text/html" }, redirect: "manual" });
  if (!answer.ok) throw new Error(answer.status || "signed out");
  const source = await answer.text();
  if (mine === turn) put(source);
  return mine === turn;
}

// -- live -----------------------------------------------------------------------------------------------------------

function say(state, words) {
  if (live.dataset.state === state) return;
  live.dataset.state = state;
  live.textContent = words;
}

let last = 0, waiting = 0, busy = false;

function soon() {
  if (waiting || document.hidden) return;
  const gap = Math.max(0, last + EVERY_MS - Date.now()) + Math.random() * 600;
  waiting = setTimeout(async () => {
    waiting = 0;
    if (busy || going) return soon();
    busy = true;
    try {
      await fetched(location.href);
      say("live", "live");
    } catch { say("cut", "not live: reload the page"); }
    last = Date.now();
    busy = false;
  }, gap);
}

// What is told of may be seen a moment later only: it is looked for once more when there is no news.
let after = 0;
function news() {
  soon();
  clearTimeout(after);
  after = setTimeout(soon, 2 * EVERY_MS + 500);
}

function follow(address) {
  let source, again = 2000;
  const open = () => {
    source = new EventSource(address);
    source.onopen = () => { say("live", "live"); if (again > 2000 || last) soon(); again = 2000; };
    source.onerror = () => {
      say("cut", "not live: reload the page");
      if (source.readyState === EventSource.CLOSED) setTimeout(open, again = Math.min(60000, again * 1.5));
    };
    for (const kind of (document.body.dataset.kinds || "").split(" ").filter(Boolean)) source.addEventListener(kind, news);
  };
  open();
  const poll = 1000 * +document.body.dataset.poll;  // for what no event tells of
  if (poll) setInterval(soon, poll);
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", event => { if (event.persisted) open(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
}

if (document.body.dataset.events) follow(document.body.dataset.events);
else live.remove();

// -- sorting, filtering and turning pages without a new page --------------------------------------------------------

async function go(address, kept = "pushState") {
  going += 1;
  try {
    if (await fetched(address) && kept) history[kept](null, "", address);
  } catch { location.assign(address); }
  going -= 1;
}

const plain = event => event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);

document.addEventListener("click", event => {
  const link = event.target.closest("a");
  if (link && plain(event) && link.closest("[data-swap]") && link.origin === location.origin && !link.dataset.whole) {
    event.preventDefault();
    go(link.href);
  }
  const ask = event.target.closest("[data-ask]");
  const dialog = ask && document.getElementById(ask.dataset.ask);
  if (dialog && plain(event)) {
    event.preventDefault();
    dialog.showModal();
  }
  const shut = event.target.closest("[data-shut]");
  if (shut) {
    event.preventDefault();
    shut.closest("dialog").close();
  }
});

addEventListener("popstate", async () => {
  await go(location.href, "");
  const here = new URLSearchParams(location.search);
  for (const field of document.querySelectorAll("form[data-swapped] :is(input, select)"))
    field.value = here.get(field.name) ?? "";
});

// What a form asks for, in the order that the table has by now.
function asked(form) {
  const given = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  const here = new URLSearchParams(location.search);
  for (const name of ["sort", "order"]) {
    if (form.elements[name]?.type === "select-one") continue;
    given.delete(name);
    if (here.has(name)) given.set(name, here.get(name));
  }
  return form.action.split("?")[0] + (given.size ? "?" + given : "");
}

let typing = 0;
document.addEventListener("submit", event => {
  const form = event.target;
  if (form.dataset.swapped === undefined) return;
  event.preventDefault();
  clearTimeout(typing);
  go(asked(form));
});
document.addEventListener("input", event => {
  const form = event.target.form;
  if (!form || form.dataset.swapped === undefined) return;
  clearTimeout(typing);
  typing = setTimeout(() => go(asked(form), "replaceState"), event.target.tagName === "SELECT" ? 0 : 300);
});

// -- what a mark of a plot stands for, where there is no mouse to rest on it -----------------------------------------

const tip = document.getElementById("tip");
document.addEventListener("pointerdown", event => {
  tip.hidden = true;
  const title = event.pointerType !== "mouse" && event.target.closest("svg *")?.querySelector(":scope > title");
  if (!title) return;
  tip.textContent = title.textContent;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(event.clientX - width / 2, innerWidth - width - 6)) + "px";
  tip.style.top = Math.max(6, event.clientY - height - 18) + "px";
});
