// Headers sort their column: first click descending for numbers, ascending for words; the next click turns it round.
// Headings of groups of rows, which are no rows of data, go where a column is sorted, and hide where rows are filtered.
const rowsOf = (table) => [...table.tBodies[0].rows].filter((row) => !row.classList.contains("group"));
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...[...table.tHead.rows].pop().cells]; // above them may stand the names of groups
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const [first] = rowsOf(table);
    const numeric = first?.cells[column].classList.contains("number") ?? false;
    if (numeric) head.classList.add("number");
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numeric;
      const key = (row) => {
        const value = row.cells[column].dataset.sort;
        return numeric ? Number(value.replace("inf", "Infinity")) : value.toLowerCase();
      };
      const rows = rowsOf(table).map((row) => [key(row), row]);
      body.querySelectorAll("tr.group").forEach((row) => row.remove());
      rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
      body.append(...rows.map(([, row]) => row));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}

// Above each table: its rows as CSV, made of what the table shows, and, for long ones, a field that filters them.
const LONG = 8; // rows
const make = (tag, values) => Object.assign(document.createElement(tag), values);
const shown = (cell) => {
  const copy = cell.cloneNode(true);
  copy.querySelectorAll("small, .sr").forEach((part) => part.remove());
  return copy.textContent.trim().replaceAll("\u2212", "-"); // a number's minus sign
};
const small = (cell) => (cell.querySelector("small")?.textContent ?? "").trim().replaceAll("\u2212", "-");
// A spreadsheet takes such cells for formulas unless an apostrophe stands before them; numbers stay (formula_cells.py).
const formula = /^'*(?![+-]?[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?(?: ?%)?$)[=+\-@\t\r]/;
const escaped = (text) => (formula.test(text) ? `'${text}` : text);
const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

// The last row of heads, with the group's name before it where there is one; what stands small has a column of its own.
function csv(table) {
  const groups = table.tHead.rows.length > 1 ? [...table.tHead.rows[0].cells] : [];
  const names = groups.flatMap((cell) => Array(cell.colSpan).fill(shown(cell)));
  const heads = [...[...table.tHead.rows].pop().cells].map((cell, at) => `${names[at] ?? ""} ${shown(cell)}`.trim());
  const rows = rowsOf(table).filter((row) => !row.hidden).map((row) => [...row.cells]);
  const doubled = heads.map((_, at) => rows.some((row) => small(row[at]) !== ""));
  const split = (cells, first, second) => cells.flatMap((cell, at) => (doubled[at] ? [first(cell), second(cell)] : [first(cell)]));
  const lines = [split(heads, (head) => head, (head) => `${head} (small print)`), ...rows.map((row) => split(row, shown, small))];
  return lines.map((line) => line.map(escaped).map(quoted).join(",")).join("\r\n") + "\r\n";
}

[...document.querySelectorAll(".scroll > table")].forEach((table, index) => {
  const tools = make("div", { className: "tools" });
  const caption = table.parentElement.getAttribute("aria-label");
  const rows = rowsOf(table);
  if (rows.length > LONG) {
    const field = make("input", { type: "search", placeholder: "Filter rows", ariaLabel: `Filter rows: ${caption}` });
    const count = make("span", { role: "status" });
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of table.querySelectorAll("tr.group")) row.hidden = words.length > 0;
      for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
      count.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
    });
    tools.append(field, count);
  }
  const save = make("button", { type: "button", textContent: "CSV", ariaLabel: `Download as CSV: ${caption}` });
  save.addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([csv(table)], { type: "text/csv" }));
    const part = table.closest("section").id;
    make("a", { href: url, download: `octdino_${part}_${index + 1}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
  tools.append(save);
  table.parentElement.before(tools);
});

// A link into something folded opens it.
const unfold = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", unfold);
unfold();

// Buttons that copy a text; where the clipboard is closed to the page, the text is selected for the reader's own copy.
for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copies);
    source.closest("details")?.setAttribute("open", "");
    const parts = source.tagName === "PRE" ? [source] : [...source.children];
    const status = button.parentElement.querySelector("[role=status]");
    try {
      await navigator.clipboard.writeText(parts.map((part) => part.textContent.trim()).join("\n\n"));
      status.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      status.textContent = "Selected: copy it with Ctrl+C";
    }
  });
}

// Everything is shown on paper, but the settings; afterwards what was folded is folded again.
const folded = "#labels, #comparison, #efficiency, #calibration, #subgroups, #explain, #errors, #methods, #cards";
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll(folded)].flatMap((part) => [...part.querySelectorAll("details:not([open])")]);
  opened.forEach((details) => (details.open = true));
});
addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
