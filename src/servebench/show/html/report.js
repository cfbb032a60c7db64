"use strict";
// What the reader does: types limits, sorts, filters and folds points, follows links to rows. Without it all of the
// page can be read.
document.documentElement.classList.add("js");
const UNITS = JSON.parse(document.body.dataset.names); // of the metrics that limits may name: "s", "J", "W", "%" or ""
const LIMIT = /^([a-z][a-z0-9_]*?)(_p[\d.]+|_mean)?(?:_s|_per_s|_j|_w)?\s*(<=|>=|<|>)\s*([+-]?)([\d.]+)\s*([a-z%]*)$/;
const SHORT = { e2e_latency: "e2e", failed_share: "error_rate", dollars_per_million_output_tokens: "dollars" };
const TESTS = { "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b };
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Limits: what is typed, and which points are within it.

function readLimit(part) {
  const found = part.toLowerCase().match(LIMIT);
  if (!found) throw Error(`cannot read "${part}": write for example ttft_p99<2s`);
  const [, typed, statistic = "", sign, change, number, unit] = found;
  const stem = SHORT[typed] ?? typed;
  const name = stem + statistic;
  if (!(name in UNITS) && `${stem}_p99` in UNITS)
    throw Error(`"${part}": write ${stem}_p50, _p90, _p95, _p99 or _mean`);
  if (!(name in UNITS)) throw Error(`no metric ${name}: write for example ttft_p99, tpot_p50, e2e_mean, error_rate`);
  if (change) throw Error(`"${part}" needs a baseline: servebench gate compares with one`);
  const allowed = { s: ["s", "ms"], "%": ["", "%"], "": [""] }[UNITS[name]] ?? [UNITS[name]];
  if (!allowed.some((each) => each.toLowerCase() === unit))
    throw Error(`"${part}": write ${name}${sign}${number}${allowed.filter(Boolean).join(` or ${name}${sign}${number}`)}`);
  const value = Number(number) / ({ ms: 1000, "%": 100 }[unit] ?? 1);
  return { name, value, words: part, upper: sign[0] === "<", within: (numbers) => TESTS[sign](numbers[name] ?? NaN, value) };
}

const readLimits = (text) => text.split(",").map((part) => part.trim()).filter(Boolean).map(readLimit);

// Which server to run within limits, as analysis/capacity.py and show/decide.py have it, from quantiles of draws.

const LEVELS = [0, 0.005, 0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975, 0.995, 1];
const NORMAL = [0, -3.2, -2.576, -1.96, -1.282, -0.674, 0, 0.674, 1.282, 1.96, 2.576, 3.2]; // an estimate, then LEVELS
const DRAWS = 1000;
const ARROW = "l-5-4m5 4l-5 4"; // of an interval without an end
const CLASS = { server: "words", against: "words" };
const UNKNOWN = "The page decides by p50, p90, p95 and p99 of ttft, tpot and e2e, and by error_rate, each below a limit.";
const excess = (value, limit) => (UNITS[limit.name] === "%" ? value / limit.value - 1 : value - Math.log(limit.value));
const line = (at, [x, above], [y, next]) => (above > x ? y + ((next - y) * (at - x)) / (above - x) : y);
const significant = (value) => (Math.abs(value) < 999.5 ? value.toPrecision(3) : value.toFixed(0)).replace("NaN", "");

function interval([, ...draws]) {
  return [0.025, 0.975].map((level) => draws.sort((a, b) => a - b)[Math.round(level * (DRAWS - 1))]);
}

function known(values, endless = false) {
  const [low, high] = interval(values);
  const to = endless || high === Infinity ? "or more" : `to ${significant(high)}`;
  return `${significant(values[0])} (${significant(low)} ${to})`;
}

// Is a load more than the server can sustain, whatever its latencies say?
const exceeds = (load, limits) =>
  load.overloaded || load.failed > (limits.find(({ name }) => name === "error_rate")?.value ?? 0.01);

// More load makes nothing easier: the nearest values that only rise.
function rising(values, weights) {
  const found = values.map(() => -Infinity);
  values.forEach((_, i) => {
    let [sum, weight, least] = [0, 0, Infinity];
    const means = values.slice(i).map((each, j) => (sum += each * weights[i + j]) / (weight += weights[i + j]));
    for (let j = values.length - 1; j >= i; j--) found[j] = Math.max(found[j], (least = Math.min(least, means[j - i])));
  });
  return found;
}

// Of these loads, [the highest that keeps the limits, requests/s there, may more load give more?]: the estimate, or with
// chance one of its draws. `open`: is that so of the estimate? `best`: the load that clearly gives more, or -1.
function capacity(loads, limits, chance, open, best = -1) {
  const draw = (of, share = chance && chance(), i = LEVELS.findIndex((level) => level > share)) =>
    chance ? line(share, LEVELS.slice(i - 1), of.slice(i)) : of[0];
  const over = (limit) => (load) => (exceeds(load, limits) ? (load.wrong ? 1e4 : Math.log(10)) : excess(draw(load.values[limit.name]), limit));
  const weights = loads.map(({ weight }) => weight);
  const curves = limits.map((limit) => rising(loads.map(over(limit)), weights));
  const worst = loads.map((_, i) => Math.max(...curves.map((curve) => curve[i])));
  const rates = loads.map((load) => draw(load.rate));
  const [first, last] = [worst.findIndex((each) => each > 0), loads.length - 1];
  if (!first) return [0, chance && (loads[0].open || loads[0].size > 1) ? rates[0] * chance() : 0];
  const grows = !last || loads[last].rate[0] > 1.05 * loads[last - 1].rate[0];
  if (best >= 0 && (first < 0 || first > best)) return [loads[best].size, rates[best], first < 0 && grows && open];
  const further = chance && grows && !open ? 1 + 0.2 * chance() : 1;
  if (first < 0) return [loads[last].size, rates[last] * further, grows && (!chance || open)];
  const [low, high] = [loads[first - 1].size, loads[first].size];
  const way = (worst[first - 1] / (worst[first - 1] - worst[first])) ** Math.exp(draw(NORMAL) / 2 - 0.35);
  const size = low * (high / low) ** way;
  const whole = loads[0].open ? size : Math.max(low, Math.floor(size + 1e-9));
  const [below, above] = [low / rates[first - 1], high / rates[first]]; // latencies
  const straight = line(whole, [low, high], [below, above]);
  const kinked = Math.min(straight, Math.max(below, whole / rates[first]));
  return [whole, whole / (straight + (chance ? chance() ** 2 : 0.25) * (kinked - straight))];
}

function candidate(server, limits, seed) {
  const over = ({ values }) => limits.some((limit) => excess(values[limit.name][0], limit) > 0);
  const judged = server.loads.filter(({ values }) => limits.every(({ name }) => name in values));
  const loads = judged.filter((load) => load.settled || exceeds(load, limits) || over(load));
  const chance = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  let estimate = loads.length ? capacity(loads, limits) : [0, 0];
  const within = loads.filter((load) => load.size <= estimate[0]).map((load) => load.rate[0]);
  const most = Math.max(...within);
  const best = most > 1.2 * estimate[1] ? within.indexOf(most) : -1;
  if (best >= 0) estimate = [loads[best].size, most, estimate[2]];
  const draw = () => capacity(loads, limits, chance, estimate[2], best);
  const drawn = [estimate, ...Array.from({ length: loads.length && DRAWS }, draw)];
  const [size, rates] = [drawn[0][0], drawn.map(([, rate]) => rate)];
  const open = drawn.map(([, , may]) => may);
  const [least, endless] = [open[0] ? "at least " : "", open.filter((may, i) => i && may).length > 0.025 * DRAWS];
  const ends = loads.slice(loads.findLastIndex((load) => load.size <= size)).slice(0, 2);
  const number = (name) => line(size, ends.map((load) => load.size), ends.map((load) => load[name] ?? NaN));
  return { ...server, loads, rates, size, open, least, endless, tokens: number("tokens"), energy: number("energy") };
}

class Decision {
  constructor(section) {
    this.part = (name) => section.querySelector(name);
    this.given = [".sentence", ".candidates", ".trust"].map((name) => [this.part(name), this.part(name).innerHTML]);
    this.servers = JSON.parse(this.part(".decision").dataset.servers);
  }

  show(limits, given) {
    for (const [part, html] of this.given) part.innerHTML = html;
    const text = (those) => those.map(({ name, value }) => `${name} ${value}`).join();
    if (this.given[0][1] && text(limits) === text(given)) return;
    const can = limits.every(({ name, upper, value }) => upper && value && /^((ttft|tpot|e2e)_p\d|error_rate$)/.test(name));
    const within = limits.map((limit) => limit.words.replace(/\s/g, "")).join(", ");
    const found = can && within ? this.judge(limits) : [];
    this.part(".sentence").textContent = within && (can ? this.sentence(found, within) : UNKNOWN);
    this.part(".candidates tbody").replaceChildren(...found.map((each) => this.row(each, found)));
    this.part(".trust").innerHTML = this.part(".exactly").outerHTML;
    this.part(".exactly").hidden = !can;
    this.part(".exactly span").textContent = within;
  }

  judge(limits) {
    const found = this.servers.map((server, i) => candidate(server, limits, 7919 * (i + 1))).filter(({ loads }) => loads.length);
    const perGpu = found.every(({ gpus }) => gpus);
    for (const each of found) each.values = each.rates.map((rate) => rate / (perGpu ? each.gpus : 1));
    found.sort((a, b) => b.values[0] - a.values[0]);
    const level = (0.025 * DRAWS) / Math.max(1, found.length - 1); // of being wrong about who is behind
    for (const each of found) {
      each.close = each.size && each.values.filter((v, i) => i && (each.open[i] || v >= found[0].values[i])).length >= level;
      const [low, high] = interval(each.values);
      each.ends = [each.values[0], low, each.endless ? Infinity : high];
    }
    return found;
  }

  sentence([best, ...others], within) {
    if (!best) return "No server can be judged: no point of the folder counts.";
    if (!best.size) return `No server keeps ${within} at any load that was measured.`;
    const rivals = others.filter((each) => each.close).map(({ name }) => name);
    const serves = `${best.name} serves ${best.least}${known(best.rates, best.endless)} requests/s within ${within}`;
    const gpus = best.gpus ? ` on ${best.gpus} GPU${best.gpus > 1 ? "s" : ""}` : "";
    const load = best.unit.replace("{}", Number(best.size.toPrecision(4))).replace(/^1 clients$/, "1 client");
    return `${serves}${gpus}, at ${load}.${rivals.length ? ` Not distinguishable from it: ${rivals.join(", ")}.` : ""}`;
  }

  row({ name, gpus, size, rates, values, least, endless, tokens, energy, hourly, loads, close, ends }, found) {
    const most = Math.max(...found.flatMap((each) => each.ends).filter(Number.isFinite)) || 1;
    this.part("[data-key=plot] small").textContent = `0 to ${significant(most)}`;
    const share = known(values.map((value, i) => (value === found[0].values[i] ? 1 : value / found[0].values[i])), endless);
    const words = size && {
      load: (least && ">= ") + Number(size.toPrecision(4)),
      rate: known(rates, endless),
      per_gpu: significant(gpus ? rates[0] / gpus : NaN),
      tokens: significant(gpus ? (tokens * rates[0]) / gpus : NaN),
      dollars: hourly ? known(rates.map((rate) => ((hourly / 3600) * 1e6) / (rate * tokens))) : "",
      energy: significant(energy),
      against: values === found[0].values ? "best" : `${close ? "≈ " : ""}${share}`,
    };
    const none = { load: `< ${loads[0].size}`, rate: "none", against: "no load keeps the limits" };
    const row = Object.assign(document.createElement("tr"), { className: close ? "rival" : "" });
    for (const { key } of all(".candidates th", this.part(".decision")).map((head) => head.dataset))
      Object.assign(row.insertCell(), { className: CLASS[key] ?? key }).textContent = { server: name, gpus: gpus ?? "-", ...(words || none) }[key] ?? "";
    const x = (value) => (value === Infinity ? 240 : 4 + (232 * value) / most);
    const [[, from, to], [middle, low, high]] = [found[0].ends.map(x), ends.map(x)];
    const drawn = `<rect x="${from}" width="${to - from}" height="20"/><path d="M${low} 10H${high}${high === 240 ? ARROW : ""}"/>`;
    const svg = `<svg class="interval" viewBox="0 0 240 20">${drawn}<circle cx="${middle}" cy="10" r="4"/></svg>`;
    if (size) row.querySelector(".plot").innerHTML = svg;
    return row;
  }
}

// A study: its layouts, and the table of its points.

class Study {
  constructor(section) {
    this.section = section;
    this.table = section.querySelector(".points");
    this.groups = [...this.table.tBodies];
    this.rows = all("tbody tr:not(.group)", this.table);
    this.heads = [...this.table.tHead.rows[0].cells];
    this.boxes = all(".filters input", this.table);
    this.layouts = [...section.querySelector(".layouts").tBodies[0].rows];
    this.chart = section.querySelector(".chart");
    this.numbers = new Map(this.rows.map((row) => [row, JSON.parse(row.dataset.numbers)]));
    this.heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => this.sort(column)));
    this.boxes.forEach((box) => box.addEventListener("input", () => this.filter()));
    for (const group of this.groups)
      group.rows[0].addEventListener("click", () => this.fold(group, !group.classList.contains("folded")));
    for (const link of all(".counts a", section)) link.addEventListener("click", () => this.keep(link.dataset.word));
    this.decision = new Decision(section);
    const typed = section.querySelector(".typed");
    typed.value = document.body.dataset.limits;
    typed.addEventListener("input", () => this.limit(typed.value));
    if (typed.value) this.limit(typed.value);
    this.filter();
  }

  // The best layout within the limits.

  limit(text) {
    let [limits, error] = [[], ""];
    try {
      limits = readLimits(text);
    } catch (fault) {
      error = fault.message;
    }
    this.section.querySelector(".error").textContent = error;
    if (error) return;
    const chosen = this.layouts.map((row) => this.choose(row, limits));
    chosen.sort((a, b) => b.value - a.value);
    for (const each of chosen) this.showLayout(each, chosen[0].value, limits);
    this.decision.show(limits, readLimits(document.body.dataset.limits));
    const words = limits.map((limit) => limit.words).join(", ");
    this.section.querySelector(".within").textContent = words && ` within ${words}`;
    if (this.chart) this.showChart(limits);
  }

  choose(row, limits) {
    const group = this.table.querySelector(`tbody[data-layout="${row.dataset.layout}"]`);
    const rate = (point) => this.numbers.get(point).request_throughput ?? 0;
    const kept = [...group.rows].slice(1).filter((point) => rate(point) && this.within(point, limits));
    const point = kept.reduce((best, each) => (best && rate(best) >= rate(each) ? best : each), null);
    const numbers = [...group.rows].slice(1).map((each) => this.numbers.get(each));
    const known = numbers.every((each) => each.request_throughput && limits.every(({ name }) => name in each));
    return { row, point, known, value: (point ? rate(point) : 0) / Number(row.dataset.gpus) };
  }

  within(point, limits) {
    return limits.every((limit) => limit.within(this.numbers.get(point)));
  }

  showLayout({ row, point, known, value }, most, limits) {
    const cells = [...row.cells];
    all("thead th", row.closest("table")).forEach((head, i) => {
      if (!head.dataset.key) return;
      cells[i].innerHTML = point ? this.cell(point, head.dataset.key).innerHTML : "-";
    });
    const none = !limits.length ? "no point can be trusted" : `no ${known ? "" : "trusted "}load is within the limits`;
    cells.at(-2).textContent = !value ? "-" : value === most ? "best" : (value / most).toFixed(2);
    cells.at(-1).textContent = point ? this.cell(point, "trust").textContent : none;
    row.parentElement.append(row);
  }

  cell(point, key) {
    return point.cells[this.heads.findIndex((head) => head.dataset.key === key)];
  }

  showChart(limits) {
    const { metric, low, high, top, bottom } = this.chart.dataset;
    const limit = limits.find((each) => each.name === metric);
    const y = limit && bottom - ((bottom - top) * Math.log(limit.value / low)) / Math.log(high / low);
    const line = this.chart.querySelector(".limit");
    line.setAttribute("visibility", y >= top && y <= bottom ? "visible" : "hidden");
    if (limit) line.setAttribute("transform", `translate(0 ${y})`);
    line.querySelector("text").textContent = limit?.words ?? "";
    for (const spot of all("a", this.chart)) {
      const point = document.querySelector(spot.getAttribute("href"));
      spot.classList.toggle("missed", limits.length > 0 && !this.within(point, limits));
    }
  }

  // The table of points.

  sort(column) {
    const up = this.heads[column].getAttribute("aria-sort") !== "ascending";
    this.heads.forEach((head) => head.removeAttribute("aria-sort"));
    this.heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    const order = (one, other) => {
      const [a, b] = [one.cells[column], other.cells[column]];
      if (empty(a) || empty(b)) return empty(a) - empty(b); // points without a number come last either way
      return (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (up ? 1 : -1);
    };
    for (const group of this.groups) group.append(...[...group.rows].slice(1).sort(order));
    this.groups.sort((a, b) => order(a.rows[1], b.rows[1]));
    this.table.append(...this.groups);
  }

  filter() {
    const wanted = this.boxes.map((box) => box.value.trim().toLowerCase());
    for (const row of this.rows) row.hidden = wanted.some((words, i) => words && !keeps(words, row.cells[i]));
    for (const group of this.groups) group.hidden = [...group.rows].slice(1).every((row) => row.hidden);
    const left = this.rows.filter((row) => !row.hidden).length;
    this.section.querySelector(".shown").textContent = `${left} of ${this.rows.length} points.`;
  }

  keep(word = "") {
    this.boxes.forEach((box) => (box.value = ""));
    this.boxes.at(-1).value = word;
    this.groups.forEach((group) => this.fold(group, false));
    this.filter();
  }

  fold(group, folded) {
    group.classList.toggle("folded", folded);
    group.querySelector("button").setAttribute("aria-expanded", !folded);
  }
}

const value = (cell) => ("value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.toLowerCase());
const empty = (cell) => cell.dataset.value === "";

function keeps(words, cell) {
  const [, sign, number] = words.match(/^(<=|>=|<|>|=)?\s*(-?[\d.]+(?:e-?\d+)?)$/) ?? [];
  if (number === undefined || !("value" in cell.dataset)) return cell.textContent.toLowerCase().includes(words);
  if (empty(cell)) return false;
  return (TESTS[sign] ?? ((a, b) => a === b))(value(cell), Number(number));
}

// Links to rows and to what is folded away.

const studies = all("section[id^=study]").map((section) => new Study(section));

function mark(rows) {
  all(".marked").forEach((row) => row.classList.remove("marked"));
  for (const study of studies) if (rows.some((row) => study.section.contains(row) && hiddenAway(row))) study.keep();
  rows.forEach((row) => row.classList.add("marked"));
  document.querySelector(".marked")?.scrollIntoView({ block: "center" });
}

const hiddenAway = (row) => row.hidden || row.parentElement.hidden || row.parentElement.classList.contains("folded");
const named = (hash) => document.getElementById(decodeURIComponent(hash.slice(1)));

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#row-"]');
  if (!link) return;
  event.preventDefault();
  const numbers = link.dataset.rows?.split(" ") ?? [link.getAttribute("href").slice("#row-".length)];
  mark(numbers.map((number) => named(`#row-${number}`)));
});

function arrive() {
  const target = location.hash && named(location.hash);
  if (target instanceof HTMLDetailsElement) target.open = true;
  if (target instanceof HTMLTableRowElement) mark([target]);
}

window.addEventListener("hashchange", arrive);
arrive();
