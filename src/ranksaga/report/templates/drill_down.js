
// Single queries: everything foreign is set as text, never as markup.
const LISTED = 50;
const part = (id) => document.getElementById(id);
const made = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
function signed(value) { return Math.abs(value) < 0.00005 ? "0.0000" : (value > 0 ? "+" : "") + value.toFixed(4); }
function place(top, id) { return top.includes(id) ? top.indexOf(id) + 1 : 0; }

function ranking(title, query, results, other) {
  const [dataset, , , gold] = query;
  const box = made("div");
  box.append(made("h3", `${title}: ${results[0].toFixed(4)}`));
  const list = made("ol");
  for (const id of results[1]) {
    const before = other ? place(other[1], id) : 0;
    const now = place(results[1], id);
    const moved = !other ? "" : !before ? " (new)" : before === now ? "" : ` (${before} → ${now})`;
    const item = made("li", undefined, gold.includes(id) ? "gold" : "");
    if (gold.includes(id)) item.append(made("strong", "relevant "));
    item.append(made("span", id + moved + " "), made("span", DETAILS.documents[`${dataset} ${id}`] || "", "muted"));
    list.append(item);
  }
  box.append(list);
  return box;
}

function opened(query, system) {
  const [, , , gold, results] = query;
  const box = made("div");
  const moves = gold.slice(0, 5).map((id) => {
    const [before, now] = [0, system].map((which) => place(results[which][1], id) || "below ten");
    return `${id}: ${before} → ${now}`;
  });
  box.append(made("p", `Relevant documents, place before and after: ${moves.join("; ") || "none"}`, "hint"));
  const pair = made("div", undefined, "pair");
  pair.append(ranking(DETAILS.systems[0], query, results[0]), ranking(DETAILS.systems[system], query, results[system], results[0]));
  box.append(pair);
  return box;
}

function histogram(changes) {
  // Ten bars for losses, one for what stayed, ten for gains.
  const counts = new Array(21).fill(0);
  for (const change of changes) counts[10 + Math.sign(change) * Math.min(10, Math.ceil(Math.abs(change) * 10))] += 1;
  const most = Math.max(1, ...counts);
  const box = part("histogram");
  box.replaceChildren(...counts.map((count) => {
    const bar = made("span");
    bar.style.height = `${Math.ceil((100 * count) / most)}%`;
    return bar;
  }));
  const [lost, gained] = [changes.filter((one) => one < 0).length, changes.filter((one) => one > 0).length];
  box.setAttribute("aria-label", `Changes from -1 to +1: ${lost} queries lost, ${gained} gained, ${changes.length - lost - gained} stayed`);
}

function listed() {
  const [dataset, system, gain] = ["dataset", "system", "gain"].map((id) => part(`pick-${id}`).value);
  const words = part("pick-words").value.toLowerCase();
  const found = DETAILS.queries
    .filter((query) => (dataset === "" || query[0] === Number(dataset)) && query[4][system])
    .filter((query) => `${query[1]} ${query[2]}`.toLowerCase().includes(words))
    .map((query) => [query, query[4][system][0] - query[4][0][0]])
    .filter(([, change]) => gain === "" || Math.sign(Math.abs(change) < 0.00005 ? 0 : change) === Number(gain));
  found.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  histogram(found.map(([, change]) => change));
  part("listed").textContent = `${found.length} queries` + (found.length > LISTED ? `, the ${LISTED} that changed most shown` : "");
  part("queries-list").replaceChildren(...found.slice(0, LISTED).map(([query, change]) => {
    const details = made("details");
    details.append(made("summary", `${signed(change)} ${DETAILS.datasets[query[0]]}: ${query[2] || query[1]}`));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(opened(query, system));
    });
    return details;
  }));
}
if (typeof DETAILS !== "undefined") {
  ["dataset", "system", "gain", "words"].forEach((id) => part(`pick-${id}`).addEventListener("input", listed));
  part("explore").hidden = false;
  listed();
}
