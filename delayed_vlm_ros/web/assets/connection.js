// Connection to the page's server. The server calls heartbeat() after every update of the page. Without one the page says
// so, is greyed, and asks the server once a second whether it is back.
"use strict";

const FIRST_HEARTBEAT_MS = 15000; // a slow browser needs some seconds to start the page
const SILENT_MS = 2200;
const CHECK_MS = 200;
const PROBE_MS = 1000;
const RECONNECT_MS = 2000;
const RELOAD_MS = 8000;
const MIN_RELOAD_PERIOD_MS = 60000;
const RELOADED = "delayed-vlm-reloaded";

const UPDATES_MISSING = "The server answers but sends no updates: reload the page.";
const TOKEN_CHANGED =
  "The page was restarted with another token: open the address that its terminal prints, or enter the new token.";

const connection = {
  heard: moment(), limit: FIRST_HEARTBEAT_MS, lost: false, probing: false, probed: null, answered: null, reconnected: null,
};

// The steady clock stops while a computer sleeps, and the wall clock can be set back: both count.
function moment() {
  return { wall: Date.now(), steady: performance.now() };
}

function elapsed(since) {
  return since ? Math.max(Date.now() - since.wall, performance.now() - since.steady) : Infinity;
}

// The server calls this function, which proves that everything on the page is up to date.
function heartbeat() {
  Object.assign(connection, { heard: moment(), limit: SILENT_MS });
  if (window.socket) window.socket.io.timeout(false).reconnectionDelayMax(PROBE_MS); // otherwise NiceGUI reloads the page
  if (connection.lost) showConnected();
}

function checkConnection() {
  if (elapsed(connection.heard) < connection.limit) return;
  if (!connection.lost) showLost();
  if (elapsed(connection.probed) >= PROBE_MS) probe();
}

async function probe() {
  if (connection.probing) return;
  Object.assign(connection, { probing: true, probed: moment() });
  const { status, server } = await askServer();
  connection.probing = false;
  if (!connection.lost) return;
  if (status === 401) say(TOKEN_CHANGED, "Enter the token");
  else if (!server) say(lostMessage());
  else if (server !== document.querySelector(".shell").dataset.server) location.reload();
  else recover();
  if (!server) connection.answered = null;
}

async function askServer() {
  try {
    const response = await fetch("/server", { cache: "no-store", signal: AbortSignal.timeout(2 * PROBE_MS) });
    const text = response.status === 200 ? await response.text() : "";
    return { status: response.status, server: /^[0-9a-f]{16}$/.test(text) ? text : "" };
  } catch {
    return { status: 0, server: "" };
  }
}

// The same server answers: its next update may be on the way. A connection that only looks open is replaced.
function recover() {
  connection.answered ||= moment();
  if (elapsed(connection.answered) > RELOAD_MS) reloadOnce();
  else if (elapsed(connection.answered) > RECONNECT_MS && elapsed(connection.reconnected) > 2 * RECONNECT_MS) reconnect();
}

function reconnect() {
  connection.reconnected = moment();
  window.socket.io.opts.query.next_message_id = window.nextMessageId;
  window.socket.disconnect().connect();
}

function reloadOnce() {
  if (Date.now() - Number(sessionStorage.getItem(RELOADED)) < MIN_RELOAD_PERIOD_MS) {
    say(UPDATES_MISSING, "Reload");
    return;
  }
  sessionStorage.setItem(RELOADED, Date.now());
  location.reload();
}

function showLost() {
  connection.lost = true;
  connection.since = new Date(Date.now() - elapsed(connection.heard)).toTimeString().slice(0, 8);
  document.documentElement.dataset.connection = "lost";
  say(lostMessage());
}

function showConnected() {
  Object.assign(connection, { lost: false, answered: null, reconnected: null });
  delete document.documentElement.dataset.connection;
  say("");
  fetchImage();
}

function lostMessage() {
  return `Connection lost at ${connection.since}, reconnecting…`;
}

function say(message, action = "") {
  const text = document.querySelector(".connection-text");
  if (!text || text.textContent === message) return;
  text.textContent = message;
  const button = document.querySelector(".connection button");
  button.textContent = action;
  button.hidden = !action;
}

// Without a connection a question or a click would be sent later, to another state of the page.
function block(event) {
  if (!connection.lost || event.target.closest(".connection, [data-show], .theme, textarea, input, select")) return;
  event.preventDefault();
  event.stopPropagation();
}

document.addEventListener("click", block, true);
document.addEventListener("submit", block, true);
document.addEventListener("click", (event) => {
  if (event.target.closest(".connection button")) location.reload();
});
document.addEventListener("visibilitychange", checkConnection);
window.addEventListener("online", checkConnection);
setInterval(checkConnection, CHECK_MS);
