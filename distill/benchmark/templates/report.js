"use strict";
// Tables work without this: it adds sorting by a click on a title, and filters.
const keyOf = (row, column) => row.cells[column].dataset.key ?? row.cells[column].textContent;

const compare = (a, b) => {
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
};

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const [body] = table.tBodies;
      const known = [...body.rows].filter((row) => keyOf(row, column) !== "");
      const unknown = [...body.rows].filter((row) => keyOf(row, column) === "");
      known.sort((a, b) => sign * compare(keyOf(a, column), keyOf(b, column)));
      body.append(...known, ...unknown);
    });
  });
}

for (const filter of document.querySelectorAll(".filter")) {
  const rows = [...document.getElementById(filter.dataset.table).tBodies[0].rows];
  const [words, choice, count] = ["input", "select", "output"].map((name) => filter.querySelector(name));
  const apply = () => {
    const wanted = words.value.trim().toLowerCase();
    for (const row of rows) {
      const chosen = !choice || !choice.value || row.cells[0].textContent === choice.value;
      row.hidden = !chosen || !row.textContent.toLowerCase().includes(wanted);
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  filter.hidden = false;
  filter.addEventListener("input", apply);
  apply();
}

window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => part.setAttribute("open", ""));
});
