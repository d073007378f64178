// Timeline of a camera's day. The server calls timeline.update() with the moments that have changed; ECharts draws them.
// A click, a tap or Enter opens the nearest moment. The visible time follows the present until it is moved.
"use strict";

const timeline = (() => {
  const MIN_SPAN_MS = 10000; // of the axis
  const MIN_WINDOW_MS = 2000;
  const MARGIN = 0.01; // of the axis
  const RENDER_MS = 900; // between two drawings of new moments
  const BUSY_MS = 400; // after a move: new moments wait
  const REACH_PX = 14; // around a moment
  const DAY_MS = 86400000;
  const NARROW_PX = 560;
  const CALENDAR_MS = 1e12; // later times are Unix times
  const CAMERA = "Camera";
  const TOP_LANES = ["Questions", "Alerts"], BOTTOM_LANES = ["Journal", CAMERA];
  // Symbols of rare moments: shape, size, colour, border. Frequent ones are bars: width, height, colour.
  const SYMBOLS = {
    marked: ["triangle", [13, 15], "--accent"],
    yes: ["diamond", [13, 13], "--alert"], no: ["diamond", [11, 11], "--panel", "--alert"],
    answered: ["circle", [9, 9], "--accent"], failed: ["circle", [7, 7], "--panel", "--error"],
  };
  const BARS = { star: [4, 15, "--star"], stream: [4, 9, "--stream"], line: [4, 8, "--kv"] };

  const state = {
    events: new Map(), spans: [], offsets: [], first: 0, now: 0, lanes: [], byLane: new Map(),
    bars: [], extent: [0, 0], follow: "all", window: [0, 0], narrow: false, current: null, hover: null,
    id: null, chart: null, changed: true, drawnAt: 0, movedAt: 0, pending: null, colours: null,
  };

  // Server ------------------------------------------------------------------------------------------------------------

  function update(id, message) {
    if (message.reset) Object.assign(state, { events: new Map(), follow: "all", current: null, hover: null });
    for (const key of message.removed) state.events.delete(key);
    for (const [key, at, lane, kind, label] of message.added) state.events.set(key, { key, at, lane, kind, label });
    if (message.removed.length || message.added.length) state.changed = true;
    Object.assign(state, { id, first: message.first, now: message.now, spans: message.spans, offsets: message.offsets });
    schedule(message.reset ? 0 : RENDER_MS);
  }

  function schedule(delay) {
    if (state.pending && delay) return;
    clearTimeout(state.pending);
    const wait = Math.max(0, state.drawnAt + delay - performance.now(), state.movedAt + BUSY_MS - performance.now());
    state.pending = setTimeout(() => { state.pending = null; render(); }, delay ? wait : 0);
  }

  // Time --------------------------------------------------------------------------------------------------------------

  function offsetAt(at) {
    let offset = state.offsets.length ? state.offsets[0][1] : 0;
    for (const [since, seconds] of state.offsets) if (since * 1000 <= at) offset = seconds;
    return offset * 1000;
  }

  // Times are local to the server, as everywhere on the page: shifted by its offset and read as UTC.
  // The axis is shifted by one offset, so that its lines are at round local times.
  function shift() {
    return state.first < CALENDAR_MS ? 0 : offsetAt(state.now);
  }

  function parts(at) {
    const text = new Date(at + offsetAt(at)).toISOString();
    return { date: text.slice(0, 10), minute: text.slice(11, 16), second: text.slice(11, 19), part: text.slice(11, 23) };
  }

  function dayName(at) {
    return new Date(at + offsetAt(at)).toLocaleDateString("en-GB", { day: "2-digit", month: "short", timeZone: "UTC" });
  }

  function clock(at) {
    if (at < CALENDAR_MS) return `${(at / 1000).toFixed(1)} s`;
    const { date, second } = parts(at);
    return date === parts(state.now).date ? second : `${dayName(at)} ${second}`;
  }

  function axisLabel(shifted) {
    const at = shifted - shift();
    const span = state.window[1] - state.window[0];
    if (at < CALENDAR_MS) return span < 600000 ? `${+(at / 1000).toFixed(1)} s` : `${+(at / 60000).toFixed(1)} min`;
    const { minute, second, part } = parts(at);
    if (span < 10000) return part.slice(0, 10);
    if (span < 600000) return second;
    return minute === "00:00" ? dayName(at) : span > 6 * DAY_MS ? `${dayName(at)} ${minute}` : minute;
  }

  function extent() {
    const until = Math.max(state.now, state.first + MIN_SPAN_MS);
    const margin = (until - state.first) * MARGIN;
    const atEnd = typeof state.follow === "number" ? state.follow * MARGIN : margin; // or it would fill a short window
    return [state.first - margin, until + atEnd];
  }

  function followWindow() {
    const [from, to] = extent();
    if (state.follow === "all") state.window = [from, to];
    else if (state.follow) state.window = [Math.max(from, to - state.follow), to];
  }

  // Colours: those of page.css, for the theme in use -------------------------------------------------------------------

  function colours() {
    const probe = document.createElement("span");
    document.body.append(probe);
    const names = ["--ink", "--quiet", "--line", "--panel", "--raised", "--accent", "--ok", "--error", "--star", "--stream",
      "--alert", "--kv"];
    const found = {};
    for (const name of names) {
      probe.style.color = `var(${name})`;
      found[name] = getComputedStyle(probe).color;
    }
    probe.remove();
    return found;
  }

  function repaint() {
    Object.assign(state, { colours: colours(), changed: true }); // the chart may draw at any time
    schedule(0);
  }

  // Drawing -----------------------------------------------------------------------------------------------------------

  function plot() {
    return document.querySelector(".timeline-plot");
  }

  function chart() {
    const element = state.id === null ? null : getElement(state.id);
    const found = element && element.chart;
    if (found && found !== state.chart) {
      Object.assign(state, { chart: found, changed: true });
      connect(found);
    }
    return found;
  }

  function render() {
    const found = chart();
    if (!found) return void setTimeout(() => schedule(0), 50);
    if (!plot().offsetParent) return; // on a phone, another view is open
    state.narrow = plot().clientWidth < NARROW_PX;
    followWindow();
    if (state.changed) arrange();
    found.setOption(options(), { lazyUpdate: false });
    Object.assign(state, { changed: false, drawnAt: performance.now() });
    showRange();
    showCurrent();
    plot().dataset.drawn = state.events.size;
  }

  function arrange() {
    const lanes = new Map();
    for (const event of state.events.values()) {
      if (!lanes.has(event.lane)) lanes.set(event.lane, []);
      lanes.get(event.lane).push(event);
    }
    for (const events of lanes.values()) events.sort((a, b) => a.at - b.at);
    const fixed = [...TOP_LANES, ...BOTTOM_LANES];
    const reasons = [...lanes.keys()].filter((lane) => !fixed.includes(lane)).sort();
    const present = (lane) => lanes.has(lane) || lane === CAMERA;
    state.lanes = [...TOP_LANES.filter(present), ...reasons, ...BOTTOM_LANES.filter(present)];
    state.byLane = lanes;
    state.bars = Object.keys(BARS).flatMap((kind) => state.lanes
      .map((lane) => ({ kind, lane, times: (lanes.get(lane) || []).filter((one) => one.kind === kind).map((one) => one.at) }))
      .filter(({ times }) => times.length));
  }

  // On a phone the name of a lane is above its moments.
  function laneHeight() {
    return state.narrow ? 42 : 22;
  }

  function laneShift() {
    return state.narrow ? 11 : 0;
  }

  function options() {
    state.colours ||= colours();
    const [from, to] = state.extent = extent();
    const zoom = { xAxisIndex: 0, startValue: state.window[0] + shift(), endValue: state.window[1] + shift(),
      minValueSpan: MIN_WINDOW_MS, filterMode: "weakFilter", throttle: 30 };
    const base = {
      xAxis: { min: from + shift(), max: to + shift() },
      dataZoom: [{ id: "inside", ...zoom }, { id: "slider", ...zoom }],
      series: [{ id: "camera", data: spanRows(from, to) }],
    };
    return state.changed ? complete(base) : base;
  }

  function complete(base) {
    const { colours: colour, lanes } = state;
    const { narrow } = state;
    const height = lanes.length * laneHeight();
    const total = `${height + (narrow ? 68 : 60)}px`;
    if (plot().style.height !== total) {
      plot().style.height = total;
      state.chart.resize();
    }
    const line = { lineStyle: { color: colour["--line"] } };
    const text = { color: colour["--quiet"], fontFamily: "system-ui, sans-serif", fontSize: 11.5 };
    return {
      animation: false,
      useUTC: true,
      grid: { left: narrow ? 8 : 104, right: narrow ? 8 : 14, top: 2, height },
      xAxis: {
        ...base.xAxis, type: "time", axisLine: line, axisTick: line, splitLine: { show: true, ...line },
        splitNumber: narrow ? 3 : 6, axisLabel: { ...text, formatter: axisLabel, hideOverlap: true },
      },
      yAxis: {
        type: "category", data: lanes, inverse: true, axisLine: { show: false }, axisTick: { show: false },
        splitLine: { show: true, ...line },
        axisLabel: narrow
          ? { ...text, fontSize: 10, inside: true, margin: 0, padding: [0, 0, 28, 2], interval: 0 }
          : { ...text, margin: 8, width: 94, overflow: "truncate", interval: 0 },
        z: 5,
      },
      dataZoom: [
        { ...base.dataZoom[0], type: "inside", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: "shift", moveOnMouseMove: true,
          preventDefaultMouseMove: false },
        { ...base.dataZoom[1], type: "slider", top: height + 32, height: narrow ? 26 : 18, left: narrow ? 20 : 104,
          right: narrow ? 20 : 14, showDataShadow: false, showDetail: false, brushSelect: false,
          handleSize: narrow ? "150%" : "110%",
          borderColor: colour["--line"], backgroundColor: colour["--raised"], fillerColor: fade(colour["--accent"], 0.16),
          handleStyle: { color: colour["--panel"], borderColor: colour["--accent"] },
          moveHandleStyle: { color: colour["--accent"], opacity: 0.5 },
          emphasis: { handleStyle: { borderColor: colour["--accent"] }, moveHandleStyle: { color: colour["--accent"] } } },
      ],
      series: [
        { ...base.series[0], type: "custom", silent: true, renderItem: renderSpan, encode: { x: [0, 1] }, clip: true },
        { id: "bars", type: "custom", silent: true, renderItem: renderBars, encode: { x: [0, 1] }, clip: true, animation: false,
          data: state.bars.map((_, index) => [base.xAxis.min, base.xAxis.max, index]) },
        ...Object.entries(SYMBOLS).map(([kind, look]) => series(kind, look)),
      ],
    };
  }

  function series(kind, [symbol, symbolSize, name, border]) {
    const index = new Map(state.lanes.map((lane, number) => [lane, number]));
    const data = [...state.events.values()]
      .filter((event) => event.kind === kind)
      .map((event) => [event.at + shift(), index.get(event.lane)])
      .sort((a, b) => a[0] - b[0]);
    const itemStyle = { color: state.colours[name], borderColor: state.colours[border], borderWidth: border ? 2 : 0 };
    return { id: kind, type: "scatter", symbol, symbolSize, symbolOffset: [0, laneShift()], silent: true, data, itemStyle,
      animation: false, clip: true };
  }

  // Times with images, gaps, and between them times that nobody observed.
  function spanRows(from, to) {
    const rows = [];
    let end = from;
    for (const [since, until, hasImages] of state.spans) {
      if (since > end) rows.push([end, since, 2]);
      rows.push([since, until, hasImages ? 1 : 0]);
      end = Math.max(end, until);
    }
    if (Math.min(state.now, to) > end) rows.push([end, Math.min(state.now, to), 2]);
    return rows.map(([since, until, kind]) => [since + shift(), until + shift(), kind]);
  }

  function renderSpan(_, api) {
    const lane = state.lanes.indexOf(CAMERA);
    const [left, middle] = api.coord([api.value(0), lane]);
    const right = api.coord([api.value(1), lane])[0];
    const thickness = [11, 5, 3][api.value(2)];
    const fill = [state.colours["--error"], state.colours["--ok"], state.colours["--line"]][api.value(2)];
    const width = Math.max(right - left, api.value(2) === 0 ? 2 : 1);
    const shape = { x: left, y: middle + laneShift() - thickness / 2, width, height: thickness };
    return { type: "rect", style: { fill }, shape };
  }

  // One shape for the moments of a kind in a lane; moments that overlap are one bar.
  function renderBars({ coordSys }, api) {
    const bar = state.bars[api.value(2)];
    if (!bar) return null; // a change of the height draws the former data once more
    const { kind, lane, times } = bar;
    const [width, height, name] = BARS[kind];
    const [from, to] = state.extent;
    const [left, middle] = api.coord([from + shift(), state.lanes.indexOf(lane)]);
    const scale = (api.coord([to + shift(), 0])[0] - left) / (to - from);
    const [first, last] = [coordSys.x - width, coordSys.x + coordSys.width + width].map((x) => from + (x - left) / scale);
    const top = middle + laneShift() - height / 2;
    let pathData = "", start = null, end = 0;
    const close = () => { if (start !== null) pathData += `M${start} ${top}H${end}V${top + height}H${start}Z`; };
    for (let index = firstFrom(times, first); index < times.length && times[index] <= last; index += 1) {
      const at = Math.round(left + (times[index] - from) * scale - width / 2);
      if (start === null || at > end) {
        close();
        start = at;
      }
      end = at + width;
    }
    close();
    return pathData ? { type: "path", shape: { pathData }, style: { fill: state.colours[name] } } : null;
  }

  function fade(colour, share) {
    return colour.replace("rgb(", "rgba(").replace(")", `, ${share})`);
  }

  function showRange() {
    const [from, to] = state.window;
    const text = state.follow === "all" ? "the whole time" : `${clock(from)} – ${state.follow ? "now" : clock(to)}`;
    const shown = document.querySelector(".timeline-range");
    if (shown.textContent !== text) shown.textContent = text;
    const chosen = state.follow === "all" ? "all" : String(state.follow || "");
    for (const button of document.querySelectorAll("[data-range]")) {
      button.setAttribute("aria-pressed", String(button.dataset.range === chosen));
    }
  }

  // Moving ------------------------------------------------------------------------------------------------------------

  function readWindow(event) {
    const moved = event.batch ? event.batch[0] : event;
    const [from, to] = state.extent;
    const at = (percent) => from + (to - from) * percent / 100;
    const [start, end] = state.window = "startValue" in moved && moved.startValue !== undefined
      ? [moved.startValue - shift(), moved.endValue - shift()] : [at(moved.start), at(moved.end)];
    const isAtEnd = to - end < (end - start) * 0.005;
    state.follow = !isAtEnd ? null : start - from < (end - start) * 0.005 ? "all" : end - start;
    Object.assign(state, { movedAt: performance.now(), hover: null });
    showRange();
    showCurrent();
  }

  // In milliseconds; 0 where the axis ends.
  function visibleRange() {
    const [from, to] = state.window;
    return [from > state.extent[0] ? Math.max(0, Math.floor(from)) : 0, state.follow ? 0 : Math.ceil(to)];
  }

  function moveTo(from, to) {
    const [first, last] = state.extent;
    const span = Math.min(Math.max(to - from, MIN_WINDOW_MS), last - first);
    const start = Math.min(Math.max(from, first), last - span) + shift();
    state.chart.dispatchAction({ type: "dataZoom", dataZoomIndex: 0, startValue: start, endValue: start + span });
  }

  function zoomBy(factor, centre = (state.window[0] + state.window[1]) / 2) {
    const [from, to] = state.window;
    moveTo(centre - (centre - from) * factor, centre + (to - centre) * factor);
  }

  function choose(range) {
    state.follow = range === "all" ? "all" : Number(range);
    state.movedAt = 0;
    schedule(0);
  }

  // Moments -----------------------------------------------------------------------------------------------------------

  function pixel(event) {
    const place = [event.at + shift(), state.lanes.indexOf(event.lane)];
    const [x, y] = state.chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, place);
    return [x, y + laneShift()];
  }

  function firstFrom(times, at) {
    let low = 0, high = times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] < at) low = middle + 1; else high = middle;
    }
    return low;
  }

  function nearest(events, at) {
    const index = firstFrom(events.map((event) => event.at), at);
    const [before, after] = [events[index - 1], events[index]];
    if (!before || !after) return before || after || null;
    return at - before.at <= after.at - at ? before : after;
  }

  function pick(x, y) {
    if (!state.lanes.length || !state.chart.containPixel({ gridIndex: 0 }, [x, y])) return null;
    const [at, lane] = state.chart.convertFromPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [x, y]);
    const event = nearest(state.byLane.get(state.lanes[Math.round(lane)]) || [], at - shift());
    return event && Math.abs(pixel(event)[0] - x) <= REACH_PX ? event : null;
  }

  function open(event) {
    state.current = event.key;
    showCurrent();
    plot().dispatchEvent(new CustomEvent("open-moment", { detail: event.key }));
  }

  function describe(event) {
    return `${clock(event.at)} ${event.label}`;
  }

  function point(name, event) {
    let mark = plot().querySelector(`.${name}`);
    if (!mark) {
      mark = document.createElement("div");
      mark.className = name;
      plot().append(mark);
    }
    const isVisible = event && event.at >= state.window[0] && event.at <= state.window[1];
    mark.hidden = !isVisible;
    if (!isVisible) return null;
    const [x, y] = pixel(event);
    mark.style.transform = `translate(${x}px, ${y}px)`;
    return [mark, x, y];
  }

  function showCurrent() {
    const event = state.events.get(state.current) || null;
    point("timeline-ring", event);
    showTip(state.events.get(state.hover) || (document.activeElement === plot() ? event : null));
  }

  function showTip(event) {
    const shown = point("timeline-tip", event);
    if (!shown) return;
    const [tip, x, y] = shown;
    const text = describe(event);
    if (tip.textContent !== text) tip.textContent = text;
    const width = plot().clientWidth;
    const left = Math.min(Math.max(x - tip.offsetWidth / 2, 0), width - tip.offsetWidth);
    const above = y - tip.offsetHeight - 14;
    tip.style.transform = `translate(${left}px, ${above < -40 ? y + 14 : above}px)`;
  }

  function hover(event) {
    const key = event ? event.key : null;
    if (key === state.hover) return;
    state.hover = key;
    plot().style.cursor = key ? "pointer" : "";
    showCurrent();
  }

  function connect(found) {
    found.on("datazoom", readWindow);
    const zr = found.getZr();
    zr.on("click", ({ offsetX, offsetY }) => {
      const event = pick(offsetX, offsetY);
      if (event) open(event);
    });
    zr.on("mousemove", ({ offsetX, offsetY }) => hover(pick(offsetX, offsetY)));
    zr.on("globalout", () => hover(null));
    new ResizeObserver(repaint).observe(plot().parentElement);
  }

  // Keyboard ----------------------------------------------------------------------------------------------------------

  function ordered() {
    return [...state.events.values()].sort((a, b) => a.at - b.at || (a.key < b.key ? -1 : 1));
  }

  function select(event) {
    if (!event) return;
    state.current = event.key;
    const [from, to] = state.window;
    if (event.at < from || event.at > to) moveTo(event.at - (to - from) / 2, event.at + (to - from) / 2);
    showCurrent();
    document.querySelector(".timeline-spoken").textContent = describe(event);
  }

  function step(by) {
    const events = ordered();
    const index = events.findIndex((event) => event.key === state.current);
    select(index < 0 ? events.at(-1) : events[index + by]);
  }

  function stepLane(by) {
    const current = state.events.get(state.current);
    if (!current) return step(0);
    const lanes = state.lanes.filter((lane) => state.byLane.has(lane));
    const lane = lanes[lanes.indexOf(current.lane) + by];
    if (lane) select(nearest(state.byLane.get(lane), current.at));
  }

  function centre() {
    const current = state.events.get(state.current);
    return current && current.at >= state.window[0] && current.at <= state.window[1] ? current.at : undefined;
  }

  const KEYS = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => stepLane(-1), ArrowDown: () => stepLane(1),
    Home: () => select(ordered()[0]), End: () => select(ordered().at(-1)),
    "+": () => zoomBy(0.5, centre()), "=": () => zoomBy(0.5, centre()), "-": () => zoomBy(2, centre()),
    "0": () => choose("all"),
    Enter: () => state.events.has(state.current) && open(state.events.get(state.current)),
  };

  document.addEventListener("keydown", (event) => {
    if (!event.target.matches(".timeline-plot") || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = KEYS[event.key];
    if (!act || !state.chart) return;
    event.preventDefault();
    act();
  });

  // ECharts stops every wheel event: without a key, it scrolls the page.
  document.addEventListener("wheel", (event) => {
    if (event.target.closest(".timeline-plot") && !event.ctrlKey && !event.shiftKey) event.stopPropagation();
  }, { capture: true, passive: true });

  document.addEventListener("focusin", (event) => { if (event.target.matches(".timeline-plot")) showCurrent(); });
  document.addEventListener("focusout", (event) => { if (event.target.matches(".timeline-plot")) showCurrent(); });

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".timeline-tools button");
    if (!button || !state.chart) return;
    if (button.dataset.range) choose(button.dataset.range);
    else if (button.dataset.zoom) zoomBy(button.dataset.zoom === "in" ? 0.5 : 2, centre());
    else if ("askRange" in button.dataset) button.dispatchEvent(new CustomEvent("ask-range", { detail: visibleRange() }));
    else if ("export" in button.dataset) {
      const [since, until] = visibleRange();
      location.assign(`/export.zip?since=${since}&until=${until}`); // a file to save, or a page with the reason
    }
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  new MutationObserver(repaint).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });

  return { update };
})();
