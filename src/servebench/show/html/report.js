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
  return { name, value, words: part, within: (numbers) => TESTS[sign](numbers[name] ?? NaN, value) };
}

const readLimits = (text) => text.split(",").map((part) => part.trim()).filter(Boolean).map(readLimit);

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
    const next = section.querySelector(".result .next");
    this.ahead = [next.className, next.textContent]; // with an interval, which limits that are typed here have not
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
    this.showResult(chosen, limits);
    if (this.chart) this.showChart(limits);
  }

  choose(row, limits) {
    const group = this.table.querySelector(`tbody[data-layout="${row.dataset.layout}"]`);
    const rate = (point) => this.numbers.get(point).request_throughput ?? 0;
    const kept = [...group.rows].slice(1).filter((point) => rate(point) && this.within(point, limits));
    const point = kept.reduce((best, each) => (best && rate(best) >= rate(each) ? best : each), null);
    const numbers = [...group.rows].slice(1).map((each) => this.numbers.get(each));
    const known = numbers.every((each) => each.request_throughput && limits.every(({ name }) => name in each));
    const all = point ? rate(point) : 0;
    return { row, point, known, all, value: all / Number(row.dataset.gpus) };
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

  showResult(chosen, limits) {
    const [best, second] = chosen;
    const part = (name) => this.section.querySelector(`.result .${name}`);
    const name = (layout) => layout.row.querySelector("span").textContent;
    const lead = second?.value ? (100 * (best.value / second.value - 1)).toFixed(0) : null;
    part("within").textContent = limits.map((limit) => limit.words).join(", ").replace(/^(?=.)/, " within ");
    part("name").textContent = best.point ? name(best) : "No best layout.";
    if (best.point) part("says").innerHTML = best.point.dataset.says;
    else part("says").textContent = "No point that can be trusted is within the limits.";
    const ahead = lead === "0" ? "About as much as" : `${lead}% more than`;
    const words = lead === null ? "" : `${ahead} the next, ${name(second)}`;
    const next = part("next");
    [next.className, next.textContent] = limits.length ? ["next", words] : this.ahead;
    const doubts = best.point ? JSON.parse(best.point.dataset.doubts) : [];
    const most = chosen.reduce((a, b) => (b.all > a.all ? b : a));
    if (most !== best) doubts.push(`More requests/s in all, on more GPUs: ${name(most)}.`);
    part("doubts").replaceChildren(
      ...doubts.map((words) => Object.assign(document.createElement("li"), { textContent: words })),
    );
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
