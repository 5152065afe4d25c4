// Charts: one specification each, drawn to the width at hand, in the colour of the text around them.
const data = JSON.parse(document.getElementById("data").textContent);

const ink = { labelColor: "currentColor", titleColor: "currentColor" };
const config = {
  background: "transparent",
  font: "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif",
  axis: {
    ...ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", titlePadding: 8,
    gridColor: "currentColor", gridOpacity: 0.12, tickColor: "currentColor", tickOpacity: 0.4,
    domainColor: "currentColor", domainOpacity: 0.4,
  },
  legend: { ...ink, labelFontSize: 13, titleFontSize: 12, titleFontWeight: "normal", symbolSize: 80 },
  header: { ...ink, labelFontSize: 13, labelFontWeight: "bold", labelAnchor: "start" },
  text: { fontSize: 12 },
  view: { stroke: null },
};

function sized(spec, room) {
  if (spec.usermeta?.own) return spec;
  if (!spec.spec) return { ...spec, width: "container", autosize: { type: "fit-x", contains: "padding" } };
  const { facets } = spec.usermeta;
  const columns = room < 560 ? 1 : facets % 2 && room > 760 ? 3 : 2;
  const inner = { ...spec.spec, width: Math.floor(room / columns) - 62 };
  // a shared axis is drawn below every column, also where the last row has no panel
  const axis = facets % columns ? { x: "independent" } : {};
  return { ...spec, columns, spec: inner, resolve: { ...spec.resolve, axis } };
}

async function draw(id, spec) {
  const place = document.getElementById(id);
  const options = { renderer: "svg", actions: false, config, tooltip: { disableDefaultStyle: true } };
  try {
    await vegaEmbed(place, sized(spec, place.clientWidth), options);
  } catch (error) {
    place.textContent = `This chart could not be drawn: ${error.message}`;
    console.error(error);
  }
}

async function drawAll(filter) {
  for (const [id, spec] of Object.entries(data.charts)) if (filter(spec)) await draw(id, spec);
}

drawAll(() => true);
let width = innerWidth, timer;
addEventListener("resize", () => {
  if (innerWidth === width) return; // phones resize their height while scrolling
  width = innerWidth;
  clearTimeout(timer);
  timer = setTimeout(() => drawAll((spec) => spec.spec && !spec.usermeta?.own), 200); // the others follow by themselves
});
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll(".warnings details")) details.open = true;
});

// The table: filter, then sort, then 200 rows a page.
const PAGE = 200;
const { columns, rows } = data.table;
const numeric = columns.map((_, k) => rows.every((row) => row[k] === null || typeof row[k] === "number"));
const words = rows.map((row) => row.join(" ").toLowerCase());
const get = (id) => document.getElementById(id);
let order = rows.map((_, i) => i), shown = order, page = 0, sorted = -1, direction = 1;

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null); // missing values come last
  return direction * (typeof a === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
}

function cell(tag, k, content) {
  const element = document.createElement(tag);
  if (numeric[k]) element.className = "number";
  element.append(content);
  return element;
}

function show() {
  const wanted = get("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  shown = order.filter((i) => wanted.every((word) => words[i].includes(word)));
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  page = Math.min(page, pages - 1);
  const visible = shown.slice(page * PAGE, (page + 1) * PAGE);
  get("table").tBodies[0].replaceChildren(...visible.map((i) => {
    const line = document.createElement("tr");
    line.append(...rows[i].map((value, k) => cell("td", k, value === null ? "" : String(value))));
    return line;
  }));
  get("count").textContent = `${shown.length} of ${rows.length} runs`;
  get("where").textContent = `page ${page + 1} of ${pages}`;
  get("pages").hidden = pages === 1;
  get("previous").disabled = page === 0;
  get("next").disabled = page === pages - 1;
}

function sort(k) {
  direction = sorted === k ? -direction : 1;
  sorted = k;
  page = 0;
  order = rows.map((_, i) => i).sort((a, b) => compare(rows[a][k], rows[b][k]) || a - b);
  [...get("table").tHead.rows[0].cells].forEach((head, j) => {
    if (j === k) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  });
  show();
}

const heads = document.createElement("tr");
heads.append(...columns.map((name, k) => {
  const button = document.createElement("button");
  button.textContent = name;
  button.addEventListener("click", () => sort(k));
  return cell("th", k, button);
}));
get("table").tHead.append(heads);
get("filter").addEventListener("input", () => { page = 0; show(); });
get("previous").addEventListener("click", () => { page -= 1; show(); });
get("next").addEventListener("click", () => { page += 1; show(); });
show();
