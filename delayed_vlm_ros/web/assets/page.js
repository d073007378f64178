// Browser-side behaviour: live image, light and dark theme, views on a phone, and keyboard shortcuts.
"use strict";

// Live image. The next image is requested when the previous one has arrived, so a slow network gets fewer images but
// never old ones. A hidden page requests none, and the camera is then not subscribed. Without an answer for some seconds,
// as after a time in the background, the image is dimmed until the next one arrives.
const IMAGE_TIMEOUT_MS = 5000;
const OLD_IMAGE_MS = 3000;
const live = { busy: false, camera: "", number: "", url: "", answered: null };

async function fetchImage() {
  const frame = document.querySelector(".live");
  const camera = frame && frame.dataset.camera;
  if (!camera || document.hidden || !frame.offsetParent) return;
  if (camera !== live.camera) hideImage(frame, camera);
  frame.classList.toggle("old", elapsed(live.answered) > OLD_IMAGE_MS);
  if (live.busy || connection.lost) return;
  live.busy = true;
  try {
    const signal = AbortSignal.timeout(IMAGE_TIMEOUT_MS);
    const response = await fetch(`/live/${encodeURIComponent(camera)}`, { signal });
    const image = response.status === 200 ? await response.blob() : null;
    if (image && camera === live.camera) showImage(frame, response.headers, image);
  } catch {
    // The server is unreachable. The page reports it (connection.js), and the next round retries.
  } finally {
    live.busy = false;
  }
}

// The image of another camera must not stay under the name of this one.
function hideImage(frame, camera) {
  Object.assign(live, { camera, number: "", answered: null });
  frame.querySelector("img").hidden = true;
  frame.querySelector(".live-size").textContent = "";
}

function showImage(frame, headers, blob) {
  live.answered = moment();
  const number = headers.get("x-number");
  if (number === live.number) return;
  const image = frame.querySelector("img");
  image.src = URL.createObjectURL(blob);
  image.hidden = false;
  if (live.url) URL.revokeObjectURL(live.url);
  Object.assign(live, { url: image.src, number });
  frame.querySelector(".live-size").textContent = headers.get("x-size").replace("x", " × ");
  frame.dataset.number = number;
}

function fetchImages() {
  fetchImage();
  const frame = document.querySelector(".live");
  setTimeout(fetchImages, Number(frame && frame.dataset.period) || 250);
}

// Theme: the system's, until the user chooses one.
const THEME = "delayed-vlm-theme";

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

function toggleTheme() {
  const dark = document.documentElement.dataset.theme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const theme = dark ? "light" : "dark";
  setTheme(theme);
  try { localStorage.setItem(THEME, theme); } catch { /* storage is disabled: the choice lasts until a reload */ }
}

try { setTheme(localStorage.getItem(THEME)); } catch { /* storage is disabled: use the system's theme */ }

// Draft of a question. It survives the reload after a long network failure.
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

function restoreDraft() {
  const box = document.getElementById("question");
  if (!box) setTimeout(restoreDraft, 100);
  else if (!box.value) box.value = sessionStorage.getItem(DRAFT) || "";
}

// A phone shows one view at a time.
function showView(view) {
  document.querySelector(".shell").dataset.view = view;
  for (const tab of document.querySelectorAll(".tabs .tab")) {
    tab.setAttribute("aria-pressed", String(tab.dataset.show === view));
  }
  window.scrollTo(0, 0);
  fetchImage();
}

function showQuestion() {
  showView("talk");
  document.getElementById("question").focus();
}

document.addEventListener("click", (event) => {
  const tab = event.target.closest("[data-show]");
  if (tab) showView(tab.dataset.show);
  if (event.target.closest(".theme")) toggleTheme();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const press = (selector) => {
    const button = document.querySelector(selector);
    if (button && button.offsetParent) button.click();
  };
  const dialog = document.querySelector(".frame-dialog");
  if (event.key === "/") {
    event.preventDefault();
    showQuestion();
  } else if (event.key === "ArrowLeft" && dialog) {
    press(".frame-dialog .older");
  } else if (event.key === "ArrowRight" && dialog) {
    press(".frame-dialog .newer");
  } else if (event.key === "Escape" && !dialog) {
    press(".talk .stop");
  }
});

document.addEventListener("visibilitychange", fetchImage);

document.addEventListener("DOMContentLoaded", () => {
  setTimeout(fetchImages, 100);
  restoreDraft();
});
