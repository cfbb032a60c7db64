"use strict";
// Sorting and filtering of the table; links to points open them.
const table = document.getElementById("table");
const rows = [...table.tBodies[0].rows];
const heads = [...table.tHead.rows[0].cells];
const boxes = [...table.querySelectorAll("input")];

const value = (cell) => ("value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.toLowerCase());
const empty = (cell) => cell.dataset.value === "";

function sort(column) {
  const up = heads[column].getAttribute("aria-sort") !== "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
  rows.sort((one, other) => {
    const [a, b] = [one.cells[column], other.cells[column]];
    if (empty(a) || empty(b)) return empty(a) - empty(b); // points without a number come last either way
    return (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (up ? 1 : -1);
  });
  table.tBodies[0].append(...rows);
}

function keeps(words, cell) {
  const [, sign, number] = words.match(/^(<=|>=|<|>|=)?\s*(-?[\d.]+(?:e-?\d+)?)$/i) ?? [];
  if (number === undefined || !("value" in cell.dataset)) return cell.textContent.toLowerCase().includes(words);
  const [a, b] = [value(cell), Number(number)];
  if (empty(cell)) return false;
  return { "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b }[sign] ?? a === b;
}

function filter() {
  const wanted = boxes.map((box) => box.value.trim().toLowerCase());
  for (const row of rows) row.hidden = wanted.some((words, i) => words && !keeps(words, row.cells[i]));
  const left = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent = `${left} of ${rows.length} points.`;
}

function open() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
}

heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => sort(column)));
boxes.forEach((box) => box.addEventListener("input", filter));
window.addEventListener("hashchange", open);
filter();
open();
