"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figures = data.figures;
  const PICO = 10n ** 12n;
  const DAY_MS = 86400000;
  const byId = (id) => document.getElementById(id);

  // --- numbers: money is whole pico-dollars (BigInt) and becomes a float only to be drawn -----------------------------
  const usd = (pico) => {
    const size = pico < 0n ? -pico : pico;
    const rest = String(size % PICO).padStart(12, "0").replace(/0+$/, "").padEnd(2, "0");
    return `${pico < 0n ? "-" : ""}${size / PICO}.${rest}`;
  };
  const drawn = (pico) => Number(pico) / 1e12;
  const count = (number) => number.toLocaleString("en-US");
  const times = (many, noun) => `${count(many)} ${many === 1 ? noun : `${noun}s`}`;
  const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "none");
  const isoDay = (day) => new Date(day * DAY_MS).toISOString().slice(0, 10);
  const dayOf = (text, other) => {
    const at = Date.parse(`${text}T00:00:00Z`);
    return Number.isNaN(at) ? other : Math.round(at / DAY_MS);
  };
  const named = (text) => text || "(none)";
  const batchName = (batch) => data.batches[batch] || "(no batch)";
  // A number on an axis or beside the pointer: no exponent, and no more digits than it has.
  const number = (value, unit) => (unit === "US$" ? value.toFixed(12).replace(/0+$/, "").replace(/\.$/, "") : count(value));
  const duration = (value) => {
    const [size, unit] = value < 90 ? [1, "s"] : value < 3600 ? [60, "min"] : value < 172800 ? [3600, "h"] : [86400, "days"];
    const part = value / size;
    return `${part >= 10 ? part.toFixed(0) : Number(part.toPrecision(2))} ${unit}`;
  };

  // --- the cubes ---------------------------------------------------------------------------------------------------
  const unpack = ({ columns, rows }) =>
    rows.map((row) => Object.fromEntries(columns.map((name, at) => [name, name.endsWith("_pico") ? BigInt(row[at]) : row[at]])));
  const cubes = Object.fromEntries(["cells", "saved", "spreads", "by_cause", "by_batch", "by_group", "containers"].map((name) => [name, unpack(data[name])]));

  const selection = () => {
    const [model, host] = [byId("model").value, byId("host").value];
    const [from, to] = [dayOf(byId("from").value, data.first), dayOf(byId("to").value, data.last)];
    const keep = (row) =>
      row.day >= from && row.day <= to && (model === "" || row.model === Number(model)) && (host === "" || row.host === Number(host));
    const kept = Object.fromEntries(Object.entries(cubes).map(([name, rows]) => [name, rows.filter(keep)]));
    const days = [];
    for (let day = Math.max(from, data.first); day <= Math.min(to, data.last); day += 1) days.push(day);
    return { ...kept, days, from, to };
  };
  // Sums by a key: Map of key → object with the summed fields.
  const sum = (rows, key, fields) => {
    const sums = new Map();
    for (const row of rows) {
      const name = key(row);
      let into = sums.get(name);
      if (!into) sums.set(name, (into = Object.fromEntries(fields.map((field) => [field, field.endsWith("_pico") ? 0n : 0]))));
      for (const field of fields) into[field] += row[field];
    }
    return sums;
  };
  const total = (rows, fields) => sum(rows, () => "", fields).get("") ?? Object.fromEntries(fields.map((f) => [f, f.endsWith("_pico") ? 0n : 0]));
  const places = (rows, field) => [...new Set(rows.map((row) => row[field]))].sort((a, b) => a - b);

  // --- what is shown: each gives labels and series for its chart, columns and rows for its table --------------------------
  const spend = ({ cells, days }) => {
    const models = places(cells, "model");
    const sums = sum(cells, (row) => `${row.day}/${row.model}`, ["spent_pico"]);
    const at = (day, model) => sums.get(`${day}/${model}`)?.spent_pico ?? 0n;
    const names = models.map((model) => named(data.models[model]));
    const rows = days.map((day) => [isoDay(day), ...models.map((model) => at(day, model)), models.reduce((all, model) => all + at(day, model), 0n)]);
    return {
      labels: days.map(isoDay),
      series: models.map((model, n) => ({ name: names[n], values: days.map((day) => drawn(at(day, model))), color: model })),
      columns: [["day", "text"], ...names.map((name) => [name, "usd"]), ["all", "usd"]],
      rows,
    };
  };
  const saving = ({ saved, days }) => {
    const sums = sum(saved, (row) => `${row.day}/${row.baseline}`, ["baseline_pico", "spent_pico"]);
    const running = data.baselines.map((_, number) => {
      let all = 0n;
      return days.map((day) => {
        const one = sums.get(`${day}/${number}`);
        if (one) all += one.baseline_pico - one.spent_pico;
        return all;
      });
    });
    return {
      labels: days.map(isoDay),
      series: data.baselines.map((name, n) => ({ name, values: running[n].map(drawn), color: n })),
      columns: [["day", "text"], ...data.baselines.map((name) => [name, "usd"])],
      rows: days.map((day, at) => [isoDay(day), ...running.map((line) => line[at])]),
    };
  };
  const costNames = [...data.cost_edges_usd.map((edge) => `to ${edge}`), `above ${data.cost_edges_usd.at(-1)}`];
  const spread = ({ spreads }, whats, titles, names) => {
    const sums = sum(spreads, (row) => `${row.what}/${row.bar}`, ["tasks"]);
    const at = (what, bar) => sums.get(`${what}/${bar}`)?.tasks ?? 0;
    const filled = names.map((_, bar) => bar).filter((bar) => whats.some((what) => at(what, bar)));
    const [low, high] = [filled[0] ?? 0, filled.at(-1) ?? -1];
    const bars = names.map((name, bar) => [name, bar]).slice(low, high + 1);
    if (whats.some((what) => at(what, -1))) bars.push(["not known", -1]);
    return {
      labels: bars.map(([name]) => name),
      series: whats.map((what, n) => ({ name: titles[n], values: bars.map(([, bar]) => at(what, bar)), color: n })),
      columns: [["up to", "text"], ...titles.map((title) => [title, "count"])],
      rows: bars.map(([name, bar]) => [name, ...whats.map((what) => at(what, bar))]),
    };
  };
  const cache = ({ cells, days }) => {
    const fields = ["cache_read_input_tokens", "cache_creation_input_tokens", "input_tokens"];
    const sums = sum(cells, (row) => row.day, fields);
    const at = (day, field) => sums.get(day)?.[field] ?? 0;
    const rate = (day) => {
      const whole = fields.reduce((all, field) => all + at(day, field), 0);
      return whole ? Math.round((1000 * at(day, "cache_read_input_tokens")) / whole) / 10 : 0;
    };
    const names = ["read from the cache", "written to it", "not cached"];
    return {
      labels: days.map(isoDay),
      series: fields.map((field, n) => ({ name: names[n], values: days.map((day) => at(day, field)), color: [2, 4, 1][n] })),
      columns: [["day", "text"], ...names.map((name) => [name, "count"]), ["hits in %", "count"]],
      rows: days.map((day) => [isoDay(day), ...fields.map((field) => at(day, field)), rate(day)]),
    };
  };
  const causes = ({ by_cause }) => {
    const sums = [...sum(by_cause, (row) => row.cause, ["tasks", "retries"])].sort(([, a], [, b]) => b.tasks + b.retries - a.tasks - a.retries);
    const names = sums.map(([cause]) => (data.causes[cause] === "succeeded" ? "succeeded in the end" : data.causes[cause]));
    return {
      labels: names,
      series: ["tasks", "retries"].map((field, n) => ({ name: ["tasks that failed", "retries"][n], values: sums.map(([, one]) => one[field]), color: [7, 1][n] })),
      columns: [["cause", "text"], ["failed", "count"], ["retries", "count"]],
      rows: sums.map(([, one], n) => [names[n], one.tasks, one.retries]),
    };
  };
  const groups = ({ by_group }) => {
    const unknown = by_group.some((row) => row.unpriced);
    const fields = ["spent_pico", ...(unknown ? ["unpriced"] : []), "tasks", "failed"];
    const sums = [...sum(by_group, (row) => `${row.by}/${row.group}`, fields)].map(([key, one]) => [...key.split("/").map(Number), one]);
    // A grouping by which nothing has a name tells nothing.
    const telling = new Set(sums.filter(([, group]) => data.groups[group] !== "").map(([by]) => by));
    const order = sums.filter(([by]) => telling.has(by)).sort(([a, , one], [b, , two]) => a - b || (one.spent_pico < two.spent_pico ? 1 : -1));
    return {
      labels: [], series: [],
      columns: [["by", "text"], ["name", "text"], ["US$", "usd"], ...(unknown ? [["no price", "count"]] : []), ["tasks", "count"], ["failed", "count"]],
      rows: order.map(([by, group, one]) => [data.groupings[by].replace("-", " "), named(data.groups[group]), ...fields.map((field) => one[field])]),
    };
  };
  const batches = ({ by_batch }) => {
    const unknown = by_batch.some((row) => row.unpriced);
    const fields = ["spent_pico", ...(unknown ? ["unpriced"] : []), "requests", "tasks", "failed"];
    const sums = [...sum(by_batch, (row) => row.batch, fields)].sort(([, a], [, b]) => (a.spent_pico < b.spent_pico ? 1 : a.spent_pico > b.spent_pico ? -1 : 0));
    const top = sums.slice(0, 15);
    return {
      labels: top.map(([batch]) => batchName(batch)),
      series: [{ name: "US$", values: top.map(([, one]) => drawn(one.spent_pico)), color: 0 }],
      columns: [["batch", "text"], ["US$", "usd"], ...(unknown ? [["no price", "count"]] : []), ["requests", "count"], ["tasks", "count"], ["failed", "count"]],
      rows: sums.map(([batch, one]) => [batchName(batch), ...fields.map((field) => one[field])]),
    };
  };
  const latencyNote = [
    `Finished tasks by the time that they ran, and waited before.${data.latency.length ? " Over the whole period:" : ""}`,
    ...data.latency.map((one) =>
      `${one.engine ? `engine ${one.engine}` : "all tasks"}: half ran within ${duration(one.run_median)}, 95 % within ${duration(one.run_p95)}; half waited up to ${duration(one.wait_median)}, 95 % up to ${duration(one.wait_p95)}.`),
  ].join(" ");
  const SECTIONS = [
    { id: "spend", title: "Spend by day and model", note: "US$ a day.", unit: "US$", type: "bar", stacked: true, of: spend },
    {
      id: "saving", title: "Cumulative saving", unit: "US$", type: "line", of: saving,
      note: "US$ saved so far beside plain claude -p on that model, nothing cached, no batch discount; below zero where it cost more.",
    },
    { id: "groups", title: "Where it went", note: "By label, work class, engine and place, as far as the tasks have them.", of: groups },
    { id: "cost", title: "Cost of a task", note: "Finished tasks by US$.", unit: "tasks", type: "bar", of: (chosen) => spread(chosen, [0], ["tasks"], costNames) },
    {
      id: "latency", title: "Latency of a task", note: latencyNote, unit: "tasks", type: "bar",
      of: (chosen) => spread(chosen, [1, 2], ["ran", "waited"], data.second_names),
    },
    { id: "cache", title: "Cache hits", note: "Prompt tokens a day.", unit: "tokens", type: "bar", stacked: true, of: cache },
    {
      id: "causes", title: "Failures and retries by cause", unit: "count", type: "bar", across: true, of: causes, none: "No task failed, and none was tried again.",
      note: "The cause is the task's last error; the ledgers do not keep why a request was retried that was answered in the end.",
    },
    {
      id: "batches", title: "Top batches", unit: "US$", type: "bar", across: true, of: batches,
      note: `The dearest 15 are drawn; the table has up to ${data.batches.length} of ${data.batches_in_all}, the dearest of the whole period.`,
    },
  ];

  // --- tables -----------------------------------------------------------------------------------------------------------
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const shown = (value, kind) => (kind === "usd" ? usd(value) : kind === "count" ? count(value) : String(value));
  const decimals = (text) => text.length - text.indexOf(".");
  // Spaces as wide as a digit bring the points of a column's amounts under one another.
  const aligned = (columns, rows) =>
    columns.map(([, kind], at) => {
      const cells = rows.map((row) => shown(row[at], kind));
      const most = kind === "usd" ? Math.max(0, ...cells.map(decimals)) : 0;
      return kind === "usd" ? cells.map((text) => text + "\u2007".repeat(most - decimals(text))) : cells;
    });
  // A cell that a spreadsheet would take for a formula is led by an apostrophe.
  const csvCell = (value, kind) => {
    let text = kind === "usd" ? usd(value) : String(value);
    if (kind === "text" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (columns, rows) =>
    [columns.map(([name]) => csvCell(name, "text")), ...rows.map((row) => row.map((value, at) => csvCell(value, columns[at][1])))]
      .map((line) => `${line.join(",")}\r\n`)
      .join("");
  const download = (name, text) => {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    const link = element("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };
  const less = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a < b ? -1 : a > b ? 1 : 0);

  class Table {
    constructor(id, title, caption = "") {
      this.id = id;
      this.order = null;
      this.head = element("tr");
      this.body = element("tbody");
      const save = element("button", { type: "button", id: `${id}-csv`, "aria-label": `Download CSV: ${title}` }, "Download CSV");
      save.addEventListener("click", () => download(`farmhand-${id}.csv`, csv(this.columns, this.sorted())));
      const table = element("table", { id: `${id}-table`, "aria-label": title }, element("thead", {}, this.head), this.body);
      this.root = element("div", {}, save, ...(caption ? [element("p", { class: "caption" }, caption)] : []), element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}: table` }, table));
    }
    set(columns, rows) {
      [this.columns, this.rows] = [columns, rows];
      if (this.order && this.order.at >= columns.length) this.order = null;
      this.draw();
    }
    sorted() {
      if (!this.order) return this.rows;
      const { at, sign } = this.order;
      return [...this.rows].sort((a, b) => sign * less(a[at], b[at]));
    }
    draw() {
      const focused = [...this.head.children].findIndex((cell) => cell.contains(document.activeElement));
      const heads = this.columns.map(([name], at) => {
        const button = element("button", { type: "button" }, name);
        button.addEventListener("click", () => {
          const same = this.order?.at === at;
          this.order = { at, sign: same ? -this.order.sign : this.columns[at][1] === "text" ? 1 : -1 };
          this.draw();
        });
        const sort = this.order?.at === at ? (this.order.sign > 0 ? "ascending" : "descending") : "none";
        return element("th", { scope: "col", "aria-sort": sort, ...(this.columns[at][1] === "text" ? { class: "text" } : {}) }, button);
      });
      this.head.replaceChildren(...heads);
      if (focused >= 0) heads[focused]?.firstChild.focus();
      const cells = aligned(this.columns, this.sorted());
      const cell = (row, at) => element("td", this.columns[at][1] === "text" ? { class: "text" } : {}, cells[at][row]);
      this.body.replaceChildren(...this.rows.map((_, row) => element("tr", {}, ...this.columns.map((_, at) => cell(row, at)))));
    }
  }

  // --- charts -----------------------------------------------------------------------------------------------------------
  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const POINTS = ["circle", "rect", "triangle", "rectRot", "star", "crossRot", "cross", "dash"];
  const dataset = (section, { name, values, color }) => {
    const paint = variable(`--c${color % 8}`);
    const line = section.type === "line";
    return {
      label: name, data: values, backgroundColor: paint, borderColor: line ? paint : variable("--track"), borderWidth: line ? 2 : 0.5,
      pointStyle: POINTS[color % 8], pointRadius: values.length > 45 ? 0 : 3, borderDash: color % 2 ? [6, 3] : [], maxBarThickness: 48,
    };
  };
  const GLYPHS = ["●", "■", "▲", "◆", "★", "✖", "✚", "━"];
  // A name in lines of `most` characters, cut where it can be.
  const lines = (text, most) => text.match(new RegExp(`.{1,${most - 1}}[-_/. ,]|.{1,${most}}`, "gu")) ?? [""];
  const options = (section) => {
    const [ink, grid] = [variable("--text"), variable("--grid")];
    const axis = (title) => ({
      stacked: Boolean(section.stacked), beginAtZero: true, grid: { color: grid }, ticks: { color: ink, maxRotation: 50 },
      title: { display: Boolean(title), text: title, color: ink },
    });
    const [names, values] = [axis(""), axis(section.unit)];
    values.ticks.callback = (value) => number(value, section.unit);
    // There are no half tasks.
    if (section.unit !== "US$") values.ticks.precision = 0;
    names.ticks.autoSkip = !section.across;
    return {
      animation: false, responsive: true, maintainAspectRatio: false, indexAxis: section.across ? "y" : "x",
      interaction: { mode: "index", intersect: false, axis: section.across ? "y" : "x" },
      scales: section.across ? { y: names, x: values } : { x: names, y: values },
      plugins: {
        legend: { display: false }, // the one below the chart breaks its lines
        tooltip: { callbacks: { label: ({ dataset, raw }) => `${dataset.label}: ${number(raw, section.unit)}` } },
      },
    };
  };

  class Section {
    constructor(what) {
      this.what = what;
      this.table = new Table(what.id, what.title);
      this.root = element("section", { id: what.id, "aria-labelledby": `${what.id}-title` }, element("h2", { id: `${what.id}-title` }, what.title), element("p", { class: "note" }, what.note));
      if (!what.type) {
        this.root.append(this.table.root);
        return;
      }
      this.canvas = element("canvas", { role: "img", id: `${what.id}-chart` });
      this.plot = element("div", { class: "plot" }, this.canvas);
      this.legend = element("ul", { class: "legend" });
      this.figure = element("figure", {}, this.plot, this.legend);
      this.nothing = element("p", {}, what.none ?? "Nothing yet.");
      this.details = element("details", { id: `${what.id}-data` }, element("summary", { "aria-label": `Data table: ${what.title}` }, "Data table"), this.table.root);
      this.root.append(this.figure, this.nothing, this.details);
    }
    set(chosen) {
      const { labels, series, columns, rows } = this.what.of(chosen);
      this.table.set(columns, rows);
      if (!this.what.type) {
        this.root.hidden = !rows.length;
        return;
      }
      this.chart?.destroy();
      this.chart = undefined;
      // A series that is zero everywhere was not used.
      const used = series.filter(({ values }) => values.some(Boolean));
      this.figure.hidden = !used.length;
      this.nothing.hidden = Boolean(used.length);
      this.details.hidden = !rows.length;
      if (!used.length) return;
      const names = used.length > 1 ? ` Series: ${used.map(({ name }) => name).join(", ")}.` : "";
      this.canvas.setAttribute("aria-label", `${this.what.title}, ${labels.length} points in ${this.what.unit}.${names} The data table below has the figures.`);
      const mark = ({ name, color }) => element("li", { class: `k${color % 8}` }, element("span", { "aria-hidden": "true" }, GLYPHS[this.what.type === "line" ? color % 8 : 1]), name);
      this.legend.replaceChildren(...(used.length > 1 ? used.map(mark) : []));
      this.chart = new Chart(this.canvas, {
        type: this.what.type, data: { labels: this.across(labels), datasets: used.map((one) => dataset(this.what, one)) }, options: options(this.what),
      });
    }
    // Names beside bars: in lines that leave the bars more than half of the width, each bar as high as its name.
    across(labels) {
      if (!this.what.across) return labels;
      const most = Math.max(8, Math.floor((this.plot.clientWidth * 0.4) / 8));
      const broken = labels.map((text) => lines(text, most));
      this.plot.style.height = `${4 + broken.reduce((all, one) => all + Math.max(2, one.length * 1.1 + 0.5), 0)}rem`;
      return broken;
    }
  }

  // --- the page ---------------------------------------------------------------------------------------------------------
  const tiles = (chosen) => {
    const all = total(chosen.cells, ["spent_pico", "requests", "unpriced", "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens", "tasks", "failed", "cancelled", "refused", "retries", "uncertain"]);
    const baseline = data.baselines.indexOf(figures.savings.baseline_model);
    const saved = total(chosen.saved.filter((row) => row.baseline === baseline), ["baseline_pico", "spent_pico"]);
    const given = all.input_tokens + all.cache_creation_input_tokens + all.cache_read_input_tokens;
    const entries = [
      ["Spent, US$", usd(all.spent_pico)],
      ...(figures.compute === null ? [] : [["Fargate besides, US$", usd(total(chosen.containers, ["fargate_pico"]).fargate_pico)]]),
      ...(baseline < 0 ? [] : [[`Saved beside ${figures.savings.baseline_model}, US$`, usd(saved.baseline_pico - saved.spent_pico)]]),
      ["Tasks", count(all.tasks)],
      ["Failed", count(all.failed)],
      ...(all.cancelled ? [["Cancelled", count(all.cancelled)]] : []),
      ...(all.refused ? [["Not begun for want of budget", count(all.refused)]] : []),
      ["Requests", count(all.requests)],
      ["Retries", count(all.retries)],
      ["Tokens in, out", `${count(given)}, ${count(all.output_tokens)}`],
      ["Cache hits", percent(all.cache_read_input_tokens, given)],
      ["Without a known price", times(all.unpriced, "request")],
      ["Charged perhaps", times(all.uncertain, "request")],
    ];
    byId("tiles").replaceChildren(...entries.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    const span = chosen.days.length ? `${isoDay(chosen.days[0])} to ${isoDay(chosen.days.at(-1))}` : "no day";
    byId("summary").textContent = `${span}: ${times(all.tasks, "task")}, US$ ${usd(all.spent_pico)}.`;
  };

  // The same work on Fargate, on a box and in Message Batches, and what was claimed of that.
  const comparison = (pico) => {
    if (data.comparison === null) return [];
    const { ways, tasks, days, tasks_a_month, verdicts, networks, prices, notes } = data.comparison;
    const table = new Table("ways", "The same work in four ways", "The same work in four ways, US$ for 1,000 tasks");
    table.set(
      [["way", "text"], ["model, US$", "usd"], ["Fargate, US$", "usd"], ["standing, US$", "usd"], ["all, US$", "usd"], ["", "text"]],
      ways.map((way) => [way.way, pico(way.model_usd), pico(way.compute_usd), pico(way.standing_usd), pico(way.total_usd), way.remark]),
    );
    const lines = [
      ...(ways.length ? [`By ${count(tasks)} tasks of ${count(days)} days: ${count(tasks_a_month)} a month.`] : ["Not enough data: no task has ended in this period."]),
      ...networks.map((one) => `The ${one.mode} network is up since ${one.since}; nothing ran in ${count(one.unused_hours)} h since ${one.known_since}: US$ ${one.unused_usd}.`),
      ...verdicts.map((one) => `${one.claim}: ${one.verdict}. ${one.answer}.`),
      ...prices.map((one) => `Prices of ${one.what}: ${one.as_of}, ${one.source}.`),
      ...notes.map((line) => `Note: ${line}.`),
    ];
    return [element("h3", {}, "On AWS, on a box, in batches"), ...(ways.length ? [table.root] : []), ...lines.map((line) => element("p", {}, line))];
  };

  const facts = () => {
    const { target, savings, box, spent, hosts, unpriced, uncertain, compute, kept_local: kept } = figures;
    const lines = [
      ...(compute === null ? [] : [`Fargate: US$ ${compute.total_usd} for ${times(compute.runs, "container")} on AWS, besides the model; US$ ${compute.with_model_usd} with it.`]),
      ...(compute !== null && compute.unknown_runs ? [`The time of ${times(compute.unknown_runs, "container")} on AWS is not known any more; what they cost is in no sum.`] : []),
      ...(kept === null ? [] : [`Kept local: ${count(kept.turns)} turns of the gateway, US$ ${kept.list_usd} at list price, not counted as saved${kept.without_price ? `; ${count(kept.without_price)} without a price` : ""}.`]),
      ...(target.factor_with_box === null ? [] : [`With the box's price in it: ${target.verdict_with_box}, ${target.factor_with_box}x.`]),
      `This month US$ ${spent.month_usd}; projected US$ ${spent.projection_month_usd}${spent.budget_month_usd === null ? "" : ` of budgets of US$ ${spent.budget_month_usd}`}.`,
      `The box: ${box.usd_month === null ? "" : `US$ ${box.usd_month} a month; `}${box.verdict}.`,
      `On the subscription instead (never added in): ${figures.subscription}.`,
      ...unpriced.map((row) => `${times(row.requests, "request")} to ${row.model}: no price is known; they are in no sum.`),
      ...(uncertain.requests ? [`${times(uncertain.requests, "request")} may have been charged without our knowing how much; they are in no sum.`] : []),
      ...hosts.filter((host) => host.error !== null).map((host) => `${host.host} could not be asked, ${host.merged_at === null ? "nothing of it is in here" : `its figures are of ${host.merged_at}`}: ${host.error}`),
      ...hosts.filter((host) => host.missing).map((host) => `${host.host} forgot ${times(host.missing, "charge")} before they were merged; they are in no sum.`),
    ];
    const pico = (text) => BigInt(text.replace(".", "").padEnd(text.replace(".", "").length + 12 - (text.length - text.indexOf(".") - 1), "0"));
    const levers = new Table("levers", "Levers", `US$ saved beside plain claude -p on ${savings.baseline_model}, by lever`);
    levers.set(
      [["lever", "text"], ["saved", "usd"], ["share, %", "number"], ["bill without only this", "usd"]],
      savings.levers.map((lever) => [lever.name, pico(lever.saving_usd), lever.share_percent ?? "", pico(lever.without_only_this_usd)]),
    );
    byId("levers").append(element("p", { class: "note" }, `The whole period; filters do not change it. Target ${target.low}-${target.high}x: ${target.verdict}${target.factor === null ? "" : `, ${target.factor}x`}.`), levers.root);
    byId("facts").append(...lines.map((line) => element("p", {}, line)), ...comparison(pico));
  };

  const fill = (select, all, names) => {
    const order = names.map((name, place) => [name, place]).sort(([a], [b]) => less(a, b));
    select.append(element("option", { value: "" }, all), ...order.map(([name, place]) => element("option", { value: place }, named(name))));
  };
  const [first, last] = [isoDay(data.first), isoDay(data.last)];
  fill(byId("model"), "All models", data.models);
  fill(byId("host"), "All hosts", data.hosts);
  for (const [id, value] of [["from", first], ["to", last]]) {
    for (const name of ["min", "max", "value"]) byId(id).setAttribute(name, { min: first, max: last, value }[name]);
  }
  byId("about").textContent =
    `${first} to ${last} (UTC), made ${figures.generated_at}; prices ${figures.price_version}; ${data.hosts.length} ${data.hosts.length === 1 ? "host" : "hosts"}.`;
  byId("spent").textContent = data.headline.spent;
  byId("said").textContent = `for ${data.headline.tasks}. ${data.headline.said}`;
  const sections = SECTIONS.map((what) => new Section(what));
  byId("sections").append(...sections.map((section) => section.root));
  byId("saving").after(element("section", { id: "levers", "aria-labelledby": "levers-title" }, element("h2", { id: "levers-title" }, "Levers")));
  const draw = () => {
    const chosen = selection();
    tiles(chosen);
    for (const section of sections) section.set(chosen);
  };
  byId("filters").addEventListener("change", draw);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(draw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  facts();
  draw();
})();
