"use strict";
// Draws a load second by second. `new ServestormCharts(element)`, then `show(load)` as often as wanted, where `load` is
// what LiveLoad.snapshot gives, all seconds from 0 on. Also in the HTML report, where it is shown once.

class ServestormCharts {
  constructor(root) {
    this.root = root;
    this.window_s = 0;
    this.second = null;
    this.load = null;
    this.build();
    new ResizeObserver(() => this.draw()).observe(root);
  }

  build() {
    const make = ServestormCharts.element;
    this.badge = make("span", "badge");
    this.settings = make("p", "settings");
    this.reasons = make("ul", "reasons");
    this.tiles = make("dl", "tiles");
    this.readout = make("p", "readout");
    this.range = make("select");
    for (const [label, seconds] of [["the whole load", 0], ["the last 5 minutes", 300], ["the last minute", 60]]) {
      this.range.append(Object.assign(make("option", "", label), {value: seconds}));
    }
    this.range.onchange = () => { this.window_s = Number(this.range.value); this.draw(); };
    const range = make("label", "range", "Show ");
    range.append(this.range);
    const head = make("div", "head");
    head.append(make("h2", "", "The load, second by second"), this.badge, range);
    this.panels = [
      new RatePanel(this, "Requests per second"),
      new LatencyPanel(this, "Latency of the answers of each second, ms, from the scheduled time (log scale)"),
      new FlightPanel(this, "Requests in flight at the end of each second"),
    ];
    this.note = make("p", "note");
    this.details = make("details");
    this.details.append(make("summary", "", "The numbers of each second"));
    this.rows = make("div", "rows");
    this.details.append(this.rows);
    this.details.ontoggle = () => this.fillTable();
    this.charts = make("div");
    this.charts.append(this.readout, ...this.panels.map(panel => panel.figure), this.note, this.details);
    this.root.replaceChildren(head, this.settings, this.reasons, this.tiles, this.charts);
  }

  show(load) {
    if (this.load && load.load !== this.load.load) this.second = null;
    this.load = load;
    const state = ServestormCharts.state(load);
    this.badge.textContent = state.badge;
    this.badge.className = `badge ${state.kind}`;
    this.settings.textContent = [ServestormCharts.settings(load), state.sentence].filter(Boolean).join(" ");
    this.reasons.replaceChildren(...state.reasons.map(reason => ServestormCharts.element("li", "", reason)));
    this.fillTiles();
    this.draw();
    this.fillTable();
  }

  fillTiles() {
    const {totals, verdict, phase} = this.load, number = ServestormCharts.number;
    const tiles = [];
    if (totals) {
      const closed = this.load.settings.closed_loop > 0;
      for (const name of ["offered", "sent", "answered", "failed", "dropped"]) {
        if (name === "offered" && closed) continue;
        tiles.push([name, number(totals[name]), (name === "failed" || name === "dropped") && totals[name] > 0]);
      }
      if (phase === "ended") {
        tiles.push(["answered per second", number(verdict.requests_per_s), false]);
        for (const name of ["p50", "p99", "max"]) {
          const value = verdict[name];
          const invalid = verdict.invalid_figures.includes(name);
          const shown = invalid ? "INVALID" : value === null ? "too few" : number(value);
          tiles.push([name === "max" ? "slowest, ms" : `${name}, ms`, shown, invalid]);
        }
      }
    }
    this.tiles.replaceChildren(...tiles.map(([name, value, alarm]) => {
      const tile = ServestormCharts.element("div", alarm ? "tile alarm" : "tile");
      tile.append(ServestormCharts.element("dt", "", name), ServestormCharts.element("dd", "", value));
      return tile;
    }));
  }

  draw() {
    const load = this.load;
    this.charts.hidden = !load || !load.seconds;
    if (this.charts.hidden || !this.charts.clientWidth) return;
    const columns = load.seconds, known = columns.sent.length;
    const whole = Math.max(known, load.planned.length, Math.ceil(load.settings.duration_s));
    const end = load.phase === "ended" ? Math.max(known, 1) : whole;
    const last = load.phase === "ended" ? end : Math.max(known, 1);
    const begin = this.window_s ? Math.max(0, last - this.window_s) : 0;
    const until = this.window_s ? Math.min(end, begin + this.window_s) : end;
    const axis = new TimeAxis(begin, until, this.charts.clientWidth);
    this.panels.forEach((panel, at) => panel.draw(load, axis, at === this.panels.length - 1));
    this.note.textContent = ServestormCharts.note(load, axis);
    this.point(this.second);
  }

  point(second) {
    const load = this.load, known = load && load.seconds ? load.seconds.sent.length : 0;
    this.second = second === null ? null : Math.max(0, Math.min(second, known - 1));
    const shown = this.second === null ? known - 1 : this.second;
    this.panels.forEach(panel => panel.point(this.second));
    this.readout.textContent = shown < 0 ? "No second is over yet." : ServestormCharts.sentence(load, shown);
  }

  fillTable() {
    if (!this.details.open || !this.load || !this.load.seconds) return;
    const columns = this.load.seconds, make = ServestormCharts.element, number = ServestormCharts.number;
    const names = ["offered", "sent", "answered", "failed", "dropped", "in_flight", "p50_ms", "p99_ms", "max_ms"];
    const titles = ["second", "offered", "sent", "answered", "failed", "dropped", "in flight", "p50, ms", "p99, ms", "slowest, ms"];
    const table = make("table"), head = make("tr");
    head.append(...titles.map(title => make("th", "", title)));
    table.append(head);
    const known = columns.sent.length;
    for (let second = known - 1; second >= Math.max(0, known - 1000); second--) {
      const row = make("tr");
      row.append(make("td", "", String(second)), ...names.map(name => make("td", "", number(columns[name][second]))));
      table.append(row);
    }
    this.rows.replaceChildren(table);
  }

  static element(tag, kind = "", text = "") {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    if (text) made.textContent = text;
    return made;
  }

  static number(value) {
    if (value === null || value === undefined) return "–";
    if (Number.isInteger(value)) return value.toLocaleString("en-US");
    return value.toLocaleString("en-US", {maximumSignificantDigits: value < 100 ? 3 : 4});
  }

  // What the load's badge says, in what colour, the sentence beside it, and the reasons below.
  static state(load) {
    const verdict = load.verdict || {valid: null, reasons: []};
    if (load.phase === "refused") return {badge: "not started", kind: "invalid", sentence: "", reasons: [load.refusal]};
    if (load.phase === "waiting") {
      return {badge: "no load yet", kind: "", sentence: "Start a load in Locust's page.", reasons: []};
    }
    if (load.phase === "warm-up") {
      const left = Math.ceil(load.warmup_left_s);
      const sentence = `Warm-up, left out of every figure: ${left} s to go.`;
      return {badge: "warm-up", kind: "", sentence, reasons: []};
    }
    if (load.phase === "running") {
      const doomed = verdict.valid === false;
      const sentence = "VALID or INVALID is decided when the load has ended.";
      return {badge: doomed ? "INVALID so far" : "running", kind: doomed ? "invalid" : "",
        sentence: doomed ? "" : sentence, reasons: verdict.reasons};
    }
    const good = verdict.valid && verdict.percentile_counts;
    const badge = good ? "VALID" : verdict.valid ? "no percentile counts" : "INVALID";
    return {badge, kind: good ? "valid" : "invalid", sentence: "", reasons: [...verdict.reasons, ...verdict.notes]};
  }

  static settings(load) {
    const settings = load.settings;
    if (!settings) return "";
    const number = ServestormCharts.number;
    let asked = `closed loop of ${number(settings.closed_loop)} requests in flight`;
    if (settings.loop === "open") {
      const {process, ...parameters} = settings.arrivals;
      const listed = Object.entries({rate: settings.rate, ...parameters})
        .filter(([, value]) => value !== null && typeof value !== "object");
      asked = `${process} arrivals (${listed.map(([name, value]) => `${name} ${value}`).join(", ")})`;
    }
    const where = settings.endpoints.length > 2 ? `${settings.endpoints.length} endpoints` : settings.endpoints.join(", ");
    const warmup = settings.warmup_s ? ` after ${number(settings.warmup_s)} s of warm-up` : "";
    return `${settings.model} on ${settings.engine}, ${settings.protocol}, ${where}: ${asked}, ` +
      `${number(settings.duration_s)} s${warmup}.`;
  }

  static sentence(load, second) {
    const columns = load.seconds, number = ServestormCharts.number, words = [];
    if (columns.offered[second] !== null) words.push(`offered ${number(columns.offered[second])}`);
    for (const name of ["sent", "answered", "failed", "dropped"]) words.push(`${name} ${number(columns[name][second])}`);
    if (columns.in_flight[second] !== null) words.push(`${number(columns.in_flight[second])} in flight at its end`);
    if (columns.p50_ms[second] === null) words.push("no answer");
    else {
      words.push(`p50 ${number(columns.p50_ms[second])} ms`);
      if (columns.p99_ms[second] !== null) words.push(`p99 ${number(columns.p99_ms[second])} ms`);
      words.push(`slowest ${number(columns.max_ms[second])} ms`);
    }
    return `Second ${second} (${second} to ${second + 1} s): ${words.join(", ")}.`;
  }

  static note(load, axis) {
    const parts = [];
    if (load.settings.warmup_s) parts.push("Time 0 is the end of the warm-up, which is left out of every figure.");
    parts.push("Requests count in the second in which they were due (offered, dropped), sent, answered or failed.");
    parts.push("A second has a p99 if it has 662 right answers or more; its slowest answer is always shown.");
    if (load.settings.closed_loop) {
      parts.push("In a closed loop, requests in flight are known when they have ended: --timeout later.");
    }
    if (axis.step > 1) parts.push(`Each bar and point is the highest value of ${axis.step} seconds.`);
    return parts.join(" ");
  }
}

// Seconds on the horizontal axis; several a step where a second would be thinner than two pixels.
class TimeAxis {
  constructor(begin, until, width) {
    this.width = Math.max(width, 320);
    this.left = 52;
    this.plot = this.width - this.left - 10;
    this.step = Math.max(1, Math.ceil((until - begin) * 2 / this.plot));
    this.begin = begin;
    this.until = begin + Math.ceil((until - begin) / this.step) * this.step;
  }

  x(second) { return this.left + (second - this.begin) / (this.until - this.begin) * this.plot; }

  second(x) { return Math.floor(this.begin + (x - this.left) / this.plot * (this.until - this.begin)); }

  // [begin, end, highest value] of each step that has a value; `from` and `to` cut the column.
  steps(column, from = 0, to = column.length) {
    const steps = [];
    for (let second = this.begin; second < Math.min(this.until, to); second += this.step) {
      let highest = null;
      for (let at = Math.max(second, from); at < Math.min(second + this.step, to); at++) {
        if (column[at] !== null && (highest === null || column[at] > highest)) highest = column[at];
      }
      if (highest !== null) steps.push([second, second + this.step, highest]);
    }
    return steps;
  }

  ticks() {
    const span = this.until - this.begin, most = Math.max(2, Math.floor(this.plot / 70));
    const every = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400]
      .find(size => span / size <= most) || 86400;
    const ticks = [];
    for (let second = Math.ceil(this.begin / every) * every; second <= this.until; second += every) ticks.push(second);
    return ticks;
  }
}

class Panel {
  constructor(charts, title, height, keys) {
    this.charts = charts;
    this.height = height;
    this.top = 8;
    this.figure = ServestormCharts.element("figure", "panel");
    const caption = ServestormCharts.element("figcaption");
    caption.append(ServestormCharts.element("b", "", title));
    this.keys = {};
    for (const [name, text, shape, colour] of keys) {
      const key = this.keys[name] = ServestormCharts.element("span", "key"), mark = ServestormCharts.element("i", shape);
      mark.style.color = mark.style.background = `var(--${colour})`;
      mark.style.borderColor = `var(--${colour})`;
      key.append(mark, text);
      caption.append(key);
    }
    this.svg = Panel.make("svg", {role: "img", tabindex: "0", "aria-label": `${title}; the numbers are in the table below`});
    this.figure.append(caption, this.svg);
    this.svg.onpointermove = event => {
      const box = this.svg.getBoundingClientRect();
      charts.point(this.axis.second((event.clientX - box.left) * this.axis.width / box.width));
    };
    this.svg.onpointerleave = () => charts.point(null);
    this.svg.onblur = () => charts.point(null);
    this.svg.onkeydown = event => {
      const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!by) return;
      event.preventDefault();
      const known = charts.load.seconds.sent.length;
      charts.point((charts.second === null ? known - 1 : charts.second) + by);
    };
  }

  static make(tag, attributes, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text) made.textContent = text;
    return made;
  }

  draw(load, axis, labelled) {
    this.axis = axis;
    this.bottom = this.height - (labelled ? 40 : 22);
    this.svg.setAttribute("viewBox", `0 0 ${axis.width} ${this.height}`);
    this.svg.replaceChildren();
    for (const second of axis.ticks()) {
      const x = axis.x(second);
      this.add("line", {class: "grid", x1: x, x2: x, y1: this.top, y2: this.bottom});
      this.add("text", {x, y: this.bottom + 15, "text-anchor": "middle"}, String(second));
    }
    if (labelled) {
      const x = axis.left + axis.plot / 2;
      this.add("text", {x, y: this.height - 5, "text-anchor": "middle"}, "seconds since the measured time began");
    }
    this.content(load, axis);
    this.cursor = this.add("line", {class: "cursor", y1: this.top, y2: this.bottom, visibility: "hidden"});
  }

  add(tag, attributes, text = "") {
    const made = Panel.make(tag, attributes, text);
    this.svg.append(made);
    return made;
  }

  point(second) {
    if (!this.cursor) return;
    const inside = second !== null && second >= this.axis.begin && second < this.axis.until;
    this.cursor.setAttribute("visibility", inside ? "visible" : "hidden");
    const x = this.axis.x((second || 0) + 0.5);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
  }

  // A linear axis from 0; returns value -> y.
  scale(highest) {
    const rough = Math.max(highest, 1) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const every = Math.max(1, [1, 2, 5, 10].map(step => step * power).find(step => step >= rough));
    const top = Math.ceil(Math.max(highest, 1) / every) * every;
    const y = value => this.bottom - value / top * (this.bottom - this.top);
    for (let value = 0; value <= top; value += every) this.level(y(value), value.toLocaleString("en-US"));
    return y;
  }

  level(y, label) {
    this.add("line", {class: "grid", x1: this.axis.left, x2: this.axis.left + this.axis.plot, y1: y, y2: y});
    this.add("text", {x: this.axis.left - 6, y: y + 4, "text-anchor": "end"}, label);
  }

  // A line of steps, broken where there is no value.
  line(kind, steps, y, closed = false) {
    let path = "", last = null;
    for (const [begin, end, value] of steps) {
      const from = this.axis.x(begin), to = this.axis.x(end), level = y(value);
      if (last !== begin) path += `${closed && path ? `V${y(0)}Z` : ""}M${from},${closed ? y(0) : level}${closed ? `V${level}` : ""}`;
      else path += `V${level}`;
      path += `H${to}`;
      last = end;
    }
    if (path) this.add("path", {class: kind, d: closed ? `${path}V${y(0)}Z` : path});
  }
}

class RatePanel extends Panel {
  constructor(charts, title) {
    super(charts, title, 250, [
      ["offered", "offered (the schedule)", "line", "offered"], ["planned", "still to come", "line planned", "offered"],
      ["answered", "answered", "", "answered"], ["failed", "failed", "", "failed"], ["dropped", "dropped", "", "dropped"],
    ]);
  }

  content(load, axis) {
    const columns = load.seconds, known = columns.sent.length;
    const bars = ["answered", "failed", "dropped"].map(name => axis.steps(columns[name]));
    const offered = axis.steps(columns.offered), planned = load.phase === "ended" ? [] : axis.steps(load.planned, known);
    const stacks = bars[0].map((_, at) => bars.reduce((sum, bar) => sum + bar[at][2], 0));
    const y = this.scale(Math.max(0, ...stacks, ...offered.map(step => step[2]), ...planned.map(step => step[2])));
    this.keys.offered.hidden = load.settings.closed_loop > 0;
    this.keys.planned.hidden = !planned.length;
    const below = bars[0].map(() => 0);
    ["answered", "failed", "dropped"].forEach((name, kind) => {
      let path = "";
      bars[kind].forEach(([begin, end, count], at) => {
        if (!count) return;
        const from = axis.x(begin), width = Math.max(axis.x(end) - from - (axis.plot > 4 * bars[0].length ? 1 : 0), 0.5);
        path += `M${from},${y(below[at])}h${width}V${y(below[at] + count)}h${-width}Z`;
        below[at] += count;
      });
      if (path) this.add("path", {class: name, d: path});
    });
    this.line("planned", planned, y);
    this.line("offered", offered, y);
  }
}

class LatencyPanel extends Panel {
  constructor(charts, title) {
    super(charts, title, 210, [
      ["p50", "p50", "line", "p50"], ["p99", "p99", "line", "p99"], ["slowest", "slowest", "dot", "slowest"],
    ]);
  }

  content(load, axis) {
    const p50 = axis.steps(load.seconds.p50_ms), p99 = axis.steps(load.seconds.p99_ms);
    const slowest = axis.steps(load.seconds.max_ms);
    this.keys.p99.hidden = !p99.length;
    if (!slowest.length) {
      this.add("text", {x: axis.left + axis.plot / 2, y: this.bottom / 2, "text-anchor": "middle"}, "no answer yet");
      return;
    }
    const y = this.logarithmic(Math.min(...p50.map(step => step[2])), Math.max(...slowest.map(step => step[2])));
    for (const [begin, end, value] of slowest) {
      this.add("circle", {class: "slowest", cx: axis.x((begin + end) / 2), cy: y(value), r: axis.plot > 6 * slowest.length ? 2.6 : 1.4});
    }
    this.line("p99", p99, y);
    this.line("p50", p50, y);
  }

  logarithmic(lowest, highest) {
    const marks = [];
    for (let power = -4; power < 8; power++) for (const digit of [1, 2, 5]) marks.push(digit * 10 ** power);
    const first = Math.max(0, marks.findIndex(mark => mark > lowest) - 1);
    const last = Math.max(first + 2, marks.findIndex(mark => mark >= highest));
    const low = Math.log(marks[first]), high = Math.log(marks[last]);
    const y = value => this.bottom - (Math.log(value) - low) / (high - low) * (this.bottom - this.top);
    const shown = marks.slice(first, last + 1).filter(mark => last - first < 9 || /^[0.]*1/.test(String(mark)));
    for (const mark of shown) this.level(y(mark), Number(mark.toPrecision(1)).toLocaleString("en-US", {maximumFractionDigits: 4}));
    return y;
  }
}

class FlightPanel extends Panel {
  constructor(charts, title) { super(charts, title, 150, []); }

  content(load, axis) {
    const steps = axis.steps(load.seconds.in_flight);
    this.line("flight", steps, this.scale(Math.max(0, ...steps.map(step => step[2]))), true);
  }
}
