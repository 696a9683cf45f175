"use strict";

// The table of members: a click on a column title sorts it, filters select rows. Only the first
// MAX_ROWS rows are shown until all are requested: a browser takes a second to lay out a thousand.
// A cell's data-v is its exact value, if that differs from its text.

const MAX_ROWS = 200;
const table = document.querySelector("table.members");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const titles = [...table.tHead.rows[0].cells];
  const value = (row, k) => row.cells[k].dataset.v ?? row.cells[k].textContent;
  const values = rows.map((row) => titles.map((_, k) => value(row, k)));
  const texts = rows.map((row) => [...row.cells].map((c) => c.textContent).join(" ").toLowerCase());
  const index = new Map(rows.map((row, i) => [row, i]));
  let order = [...rows];
  let matching = new Set(rows);
  let maxRows = MAX_ROWS;

  // Numbers are compared by value, and so are numbers within text; empty cells come last.
  const collator = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b, isNumber) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return isNumber ? Number(a) - Number(b) : collator.compare(a, b);
  };

  function sort(k) {
    const isNumber = titles[k].dataset.type === "number";
    // The first click sorts numbers in descending order and text in ascending order.
    const previous = titles[k].getAttribute("aria-sort");
    const descending = previous ? previous === "ascending" : isNumber;
    const cell = (row) => values[index.get(row)][k];
    order.sort((a, b) => {
      const [x, y] = [cell(a), cell(b)];
      const sign = descending && x !== "" && y !== "" ? -1 : 1;
      return sign * compare(x, y, isNumber);
    });
    titles.forEach((title) => title.removeAttribute("aria-sort"));
    titles[k].setAttribute("aria-sort", descending ? "descending" : "ascending");
    show();
  }

  const filters = document.querySelector(".filters");
  const search = filters.querySelector("input");
  const selects = [...filters.querySelectorAll("select")];
  const count = filters.querySelector("output");
  const showAll = filters.querySelector("button");

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = selects.filter((s) => s.selectedIndex > 0).map((s) => [s.dataset.column, s.value]);
    const matches = (_, i) =>
      words.every((word) => texts[i].includes(word)) &&
      chosen.every(([k, choice]) => values[i][k] === choice);
    matching = new Set(rows.filter(matches));
    show();
  }

  function show() {
    const shown = order.filter((row) => matching.has(row));
    body.replaceChildren(...shown.slice(0, maxRows));
    count.value = `${shown.length} of ${rows.length} members`;
    showAll.textContent = `show all ${shown.length}`;
    showAll.hidden = shown.length <= maxRows;
  }

  titles.forEach((title, k) =>
    title.querySelector("button").addEventListener("click", () => sort(k)));
  search.addEventListener("input", filter);
  selects.forEach((select) => select.addEventListener("change", filter));
  showAll.addEventListener("click", () => {
    maxRows = Infinity;
    show();
  });
  show();
}
