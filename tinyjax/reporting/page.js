"use strict";

// The table of members: sorts by a click on a column's head, shows the rows that pass the filters,
// the first MOST of them until all are asked for: a browser takes a second to lay out a thousand.
// A cell's data-v is its exact value where it is not its text.

const MOST = 200;
const table = document.querySelector("table.members");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, k) => row.cells[k].dataset.v ?? row.cells[k].textContent;
  const values = rows.map((row) => heads.map((_, k) => value(row, k)));
  const texts = rows.map((row) => [...row.cells].map((c) => c.textContent).join(" ").toLowerCase());
  const place = new Map(rows.map((row, i) => [row, i]));
  let order = [...rows];
  let passing = new Set(rows);
  let most = MOST;

  // Numbers by size, all else as text with its numbers by size; what is empty comes last.
  const text = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b, isNumber) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return isNumber ? Number(a) - Number(b) : text.compare(a, b);
  };

  function sort(k) {
    const isNumber = heads[k].dataset.kind === "number";
    // A number's first click shows the largest first, a name's the first of the alphabet.
    const before = heads[k].getAttribute("aria-sort");
    const down = before ? before === "ascending" : isNumber;
    const cells = (row) => values[place.get(row)][k];
    order.sort((a, b) => {
      const [x, y] = [cells(a), cells(b)];
      const way = down && x !== "" && y !== "" ? -1 : 1;
      return way * compare(x, y, isNumber);
    });
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[k].setAttribute("aria-sort", down ? "descending" : "ascending");
    show();
  }

  const choices = document.querySelector(".choices");
  const search = choices.querySelector("input");
  const selects = [...choices.querySelectorAll("select")];
  const count = choices.querySelector("output");

  const more = choices.querySelector("button");

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = selects.filter((s) => s.selectedIndex > 0).map((s) => [s.dataset.column, s.value]);
    const passes = (_, i) =>
      words.every((word) => texts[i].includes(word)) &&
      wanted.every(([k, one]) => values[i][k] === one);
    passing = new Set(rows.filter(passes));
    show();
  }

  function show() {
    const shown = order.filter((row) => passing.has(row));
    body.replaceChildren(...shown.slice(0, most));
    count.value = `${shown.length} of ${rows.length} members`;
    more.textContent = `show all ${shown.length}`;
    more.hidden = shown.length <= most;
  }

  heads.forEach((head, k) => head.querySelector("button").addEventListener("click", () => sort(k)));
  search.addEventListener("input", filter);
  selects.forEach((select) => select.addEventListener("change", filter));
  more.addEventListener("click", () => {
    most = Infinity;
    show();
  });
  show();
}
