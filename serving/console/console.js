// Keeps a customer's page up to date: asks for its live part every few seconds and takes over what is new.
"use strict";

(() => {
  const EVERY = 2000; // milliseconds
  const AFTER_FAILURE = 10000;
  const status = document.getElementById("status");
  if (!status) return; // not a page that changes

  const keyed = (list) => new Map([...list.children].map((item) => [item.dataset.key, item]));

  // What came since stands in the fetched list at its place; everything else stays as it is, focus and scroll included.
  function takeOver(fetched) {
    const present = keyed(document.getElementById("events"));
    const list = document.getElementById("events");
    const added = [];
    let before = list.firstElementChild;
    for (const item of fetched.getElementById("events").children) {
      const known = present.get(item.dataset.key);
      if (known) {
        before = known.nextElementSibling;
        continue;
      }
      const copy = document.importNode(item, true);
      list.insertBefore(copy, before);
      if (copy.classList.contains("event")) added.push(copy);
    }
    if (added.length) document.getElementById("none")?.remove();
    return added;
  }

  function refreshFacts(fetched) {
    const old = document.getElementById("facts");
    const fresh = fetched.getElementById("facts");
    if (old.textContent === fresh.textContent) return;
    const open = old.querySelector("details")?.open;
    old.replaceChildren(...document.importNode(fresh, true).childNodes);
    const details = old.querySelector("details");
    if (details && open) details.open = true;
  }

  function say(state, text) {
    status.className = `status ${state}`;
    if (status.textContent !== text) status.textContent = text;
  }

  async function look() {
    const answer = await fetch(status.dataset.source, { cache: "no-store", credentials: "same-origin" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const fetched = new DOMParser().parseFromString(await answer.text(), "text/html");
    refreshFacts(fetched);
    const added = takeOver(fetched);
    for (const item of added) item.classList.add("new");
    const count = document.querySelectorAll(".event.new").length;
    say("live", count ? status.dataset.new.replace("{}", count) : status.dataset.live);
  }

  let timer;
  let asking = false;
  async function round() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    let wait = EVERY;
    if (!document.hidden) {
      try {
        await look();
      } catch {
        say("lost", status.dataset.lost);
        wait = AFTER_FAILURE;
      }
    }
    asking = false;
    timer = setTimeout(round, wait);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) round();
  });
  round();
})();
