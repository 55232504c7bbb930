"use strict";
// Headings become buttons only where scripts run, so the page is whole without them.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", direction);
      body.append(...[...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], direction)));
    });
  });
}

// Cells with a number go by it, others by their text; cells without a figure stay last either way.
function compare(a, b, direction) {
  const sign = direction === "ascending" ? 1 : -1;
  const numbers = ["key" in a.dataset, "key" in b.dataset];
  if (numbers[0] && numbers[1]) return sign * (Number(a.dataset.key) - Number(b.dataset.key));
  if (numbers[0] !== numbers[1]) return numbers[0] ? -1 : 1;
  return sign * a.textContent.localeCompare(b.textContent);
}

// Paper cannot be unfolded.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
