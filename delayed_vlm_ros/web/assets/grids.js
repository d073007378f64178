// Keyboard in groups of frames: one Tab stop a group, arrow keys inside it.
"use strict";

const GROUPS = "[data-grid]";
const last = { group: null, button: null, index: 0 };

function members(group) {
  return [...group.querySelectorAll("button")];
}

function choose(group, button) {
  for (const one of members(group)) if (one !== button && one.tabIndex === 0) one.tabIndex = -1;
  button.tabIndex = 0;
}

// Every group has one Tab stop, also after its frame has left the memory. The focus moves to its neighbour then.
function repairGroups() {
  for (const group of document.querySelectorAll(GROUPS)) {
    const buttons = members(group);
    if (buttons.length && !buttons.some((one) => one.tabIndex === 0)) buttons[0].tabIndex = 0;
  }
  if (last.button && !last.button.isConnected && document.activeElement === document.body) focusNeighbour();
}

function focusNeighbour() {
  const buttons = members(last.group);
  const next = buttons[Math.min(last.index, buttons.length - 1)];
  if (next) next.focus({ preventScroll: true });
}

function fromLeftToRight(group) {
  return members(group)
    .map((one) => ({ one, left: one.getBoundingClientRect().left }))
    .sort((a, b) => a.left - b.left)
    .map(({ one }) => one);
}

function target(key, buttons, index) {
  const targets = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: buttons.length - 1 };
  return buttons[targets[key]];
}

document.addEventListener("focusin", (event) => {
  const group = event.target.closest(GROUPS);
  last.button = null;
  if (!group) return;
  Object.assign(last, { group, button: event.target, index: members(group).indexOf(event.target) });
  choose(group, event.target);
});

document.addEventListener("pointerdown", () => { last.button = null; });

document.addEventListener("keydown", (event) => {
  const group = event.target.closest(GROUPS);
  if (!group || event.ctrlKey || event.metaKey || event.altKey) return;
  const buttons = fromLeftToRight(group);
  const next = target(event.key, buttons, buttons.indexOf(event.target));
  if (!next) return;
  event.preventDefault();
  next.focus();
});

document.addEventListener("DOMContentLoaded", () => {
  new MutationObserver(repairGroups).observe(document.body, { subtree: true, childList: true });
  repairGroups();
});
