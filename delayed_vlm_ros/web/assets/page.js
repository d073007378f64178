// What the browser does by itself: the live image, light and dark, views on a phone, and the keyboard.
"use strict";

// The live image. The next one is fetched when the last one is there, so a slow network gets fewer and never old ones,
// and a page that nobody looks at fetches none: then the camera is not even subscribed to.
const live = { busy: false, number: "", url: "" };

async function nextImage() {
  const frame = document.querySelector(".live");
  const camera = frame && frame.dataset.camera;
  if (!camera || document.hidden || live.busy || !frame.offsetParent) return;
  live.busy = true;
  try {
    const answer = await fetch(`/live/${encodeURIComponent(camera)}`);
    const number = `${camera} ${answer.headers.get("x-number")}`;
    if (answer.status === 200 && number !== live.number) {
      const image = frame.querySelector("img");
      const url = URL.createObjectURL(await answer.blob());
      image.src = url;
      image.hidden = false;
      if (live.url) URL.revokeObjectURL(live.url);
      Object.assign(live, { url, number });
      frame.querySelector(".live-size").textContent = answer.headers.get("x-size").replace("x", " × ");
      frame.dataset.number = answer.headers.get("x-number");
    }
  } catch {
    // The server is away; the page says so by itself, and the next round tries again.
  } finally {
    live.busy = false;
  }
}

function keepFetching() {
  nextImage();
  const frame = document.querySelector(".live");
  setTimeout(keepFetching, Number(frame && frame.dataset.period) || 250);
}

// Light and dark: as the system has it, until somebody chooses.
const THEME = "delayed-vlm-theme";

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

function otherTheme() {
  const dark = document.documentElement.dataset.theme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const theme = dark ? "light" : "dark";
  setTheme(theme);
  try { localStorage.setItem(THEME, theme); } catch { /* not to be remembered, then */ }
}

try { setTheme(localStorage.getItem(THEME)); } catch { /* as the system has it */ }

// A question that is half typed outlives a reload, which a network that was away for long may cause.
const DRAFT = "delayed-vlm-question";

function clearQuestion() {
  const box = document.getElementById("question");
  box.value = "";
  box.focus();
  sessionStorage.removeItem(DRAFT);
}

document.addEventListener("input", (event) => {
  if (event.target.id === "question") sessionStorage.setItem(DRAFT, event.target.value);
});

function bringDraft() {
  const box = document.getElementById("question");
  if (!box) setTimeout(bringDraft, 100);
  else if (!box.value) box.value = sessionStorage.getItem(DRAFT) || "";
}

// On a phone one view is shown at a time.
function showView(view) {
  document.querySelector(".shell").dataset.view = view;
  for (const tab of document.querySelectorAll(".tabs .tab")) {
    tab.setAttribute("aria-pressed", String(tab.dataset.show === view));
  }
  window.scrollTo(0, 0);
}

document.addEventListener("click", (event) => {
  const tab = event.target.closest("[data-show]");
  if (tab) showView(tab.dataset.show);
  if (event.target.closest(".theme")) otherTheme();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const press = (selector) => {
    const button = document.querySelector(selector);
    if (button && button.offsetParent) button.click();
  };
  if (event.key === "/") {
    event.preventDefault();
    showView("talk");
    document.getElementById("question").focus();
  } else if (event.key === "ArrowLeft" && document.querySelector(".enlarged")) {
    press(".enlarged .older");
  } else if (event.key === "ArrowRight" && document.querySelector(".enlarged")) {
    press(".enlarged .newer");
  } else if (event.key === "Escape" && !document.querySelector(".enlarged")) {
    press(".talk .stop");
  }
});

document.addEventListener("DOMContentLoaded", () => {
  setTimeout(keepFetching, 100);
  bringDraft();
});
