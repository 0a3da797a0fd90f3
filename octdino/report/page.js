// Headers sort their column: first click descending for numbers, ascending for words; the next click turns it round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...[...table.tHead.rows].pop().cells]; // above them may stand the names of groups
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const numeric = body.rows.length > 0 && body.rows[0].cells[column].classList.contains("number");
    if (numeric) head.classList.add("number");
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numeric;
      const key = (row) => {
        const value = row.cells[column].dataset.sort;
        return numeric ? Number(value.replace("inf", "Infinity")) : value.toLowerCase();
      };
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
// Everything is shown on paper.
addEventListener("beforeprint", () => document.querySelectorAll("#labels details, #comparison details, #calibration details, #subgroups details").forEach((d) => (d.open = true)));
