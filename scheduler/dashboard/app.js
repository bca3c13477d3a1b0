// The scheduler's dashboard: draws each snapshot that is pushed. Whatever comes from nodes or tenants is set as text.
"use strict";

const STREAM = "v1/admin/stream";
const STALE_MS = 5000; // without a snapshot for so long what is shown is old
const RENEW_MS = 15000; // and after so long the stream is opened anew
const RETRY_MS = 3000;
const SVG = "http://www.w3.org/2000/svg";
const GOOD = "good", WARN = "warn", BAD = "bad", NUMBER = "number", NAME = "name";
const STATES = { healthy: GOOD, loading: WARN, draining: WARN, stale: BAD, ejected: BAD };

const at = (id) => document.getElementById(id);

function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// ---- numbers

const known = (value) => value !== null && value !== undefined;
const whole = (value) => (known(value) ? Math.round(value).toLocaleString("en") : "-");
const fixed = (value, digits) => (known(value) ? value.toFixed(digits) : "-");
const percent = (share) => (known(share) ? `${(100 * share).toFixed(0)} %` : "-");
const limit = (value, show) => (known(value) ? show(value) : "no limit");

function seconds(value) {
  if (!known(value)) return "-";
  if (value >= 7200) return `${(value / 3600).toFixed(1)} h`;
  if (value >= 120) return `${(value / 60).toFixed(1)} min`;
  return `${value.toFixed(value < 10 ? 2 : 1)} s`;
}

function bytes(value) {
  if (!known(value)) return "-";
  let unit = 0;
  for (; value >= 1024 && unit < 4; unit += 1) value /= 1024;
  return `${value.toFixed(unit && value < 10 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

const clock = (ns) => new Date(ns / 1e6).toLocaleTimeString();

// ---- tables

// Columns: heading, class, what is shown of a row, and the class of that cell where it depends on the row.
const text = (heading, show, tone) => ({ heading, kind: "", show, tone });
const name = (heading, show) => ({ heading, kind: NAME, show });
const number = (heading, show, tone) => ({ heading, kind: NUMBER, show, tone });
const built = (heading, build) => ({ heading, kind: "", build });

const TABLES = {
  nodes: {
    key: (node) => node.node_id,
    columns: [
      name("node", (node) => node.node_id),
      text("kind", (node) => node.kind),
      text("state", (node) => node.state, (node) => STATES[node.state] || ""),
      text("models", (node) => node.models.join(", ")),
      number("at work", (node) => whole(node.in_flight)),
      number("queued", (node) => whole(node.queued)),
      number("work ahead", (node) => seconds(node.remaining_s)),
      number("CPU", (node) => `${fixed(node.cpu_percent, 0)} %`),
      number("memory", (node) => bytes(node.memory_bytes)),
      number("heard", (node) => `${seconds(node.report_age_s)} ago`),
    ],
  },
  pools: {
    key: (pool) => pool.pool,
    columns: [
      name("pool", (pool) => pool.pool),
      number("waiting", (pool) => whole(pool.waiting)),
      number("work waiting", (pool) => seconds(pool.waiting_s)),
      number("at hand", (pool) => seconds(pool.at_hand_s)),
      number("arriving", (pool) => `${fixed(pool.arriving, 2)} s/s`),
      number("workers", (pool) => whole(pool.workers)),
      number("should be", (pool) => whole(pool.desired), (pool) => (pool.desired > pool.workers ? WARN : "")),
      text("why", (pool) => (pool.panic ? `panic: ${pool.reason}` : pool.reason), (pool) => (pool.panic ? BAD : "")),
    ],
  },
  decisions: {
    key: (made) => `${made.job_id} ${made.at_ns}`,
    columns: [
      text("at", (made) => clock(made.at_ns)),
      name("job", (made) => made.job_id),
      text("tenant", (made) => made.tenant),
      text("plan", (made) => made.plan, (made) => (made.refused ? BAD : "")),
      text("edge", (made) => (made.draft_edge_id ? `${made.edge_id}, drafted by ${made.draft_edge_id}` : made.edge_id)),
      text("pool", (made) => made.pool),
      number("draft", (made) => seconds(made.draft_s)),
      number("final", (made) => seconds(made.final_s)),
      number("QoE", (made) => fixed(made.qoe, 2)),
      number("moved", (made) => bytes(made.moved_bytes)),
      built("reasons", reasons),
    ],
  },
  accuracies: {
    key: (part) => part.part,
    columns: [
      text("part", (part) => part.part),
      number("outcomes", (part) => whole(part.outcomes)),
      number("covered", (part) => percent(part.outcomes ? part.covered / part.outcomes : null)),
      number("off by", (part) => percent(part.error)),
      number("upper", (part) => `${fixed(part.upper, 2)} times`),
    ],
  },
  paces: {
    key: (pace) => `${pace.node_id} ${pace.model}`,
    columns: [
      name("node", (pace) => pace.node_id),
      text("model", (pace) => pace.model),
      number("times its card", (pace) => fixed(pace.factor, 2)),
      number("seen", (pace) => whole(pace.observations)),
    ],
  },
  lines: {
    key: (line) => line.line,
    columns: [
      name("model", (line) => line.line),
      name("served by", (line) => line.stable),
      name("tried", (line) => line.candidate || "-"),
      text("phase", (line) => (line.paused ? `${line.phase}, paused` : line.phase), (line) => (line.candidate ? WARN : GOOD)),
      number("share", (line) => (line.candidate ? `${fixed(line.percent, 0)} %` : "-")),
      number("sessions", (line) => (line.candidate ? whole(line.sessions) : "-")),
      number("for", (line) => (line.candidate ? seconds(line.phase_s) : "-")),
      text("waits for", (line) => line.waits_for.join("; ")),
      text("nodes", (line) => line.nodes.map(loaded).join("; "), (line) => (line.nodes.some(refuses) ? BAD : "")),
    ],
  },
  gates: {
    key: (gate) => `${gate.line} ${gate.name}`,
    columns: [
      name("tried", (gate) => gate.version),
      text("gate", (gate) => (gate.needed ? gate.name : `${gate.name} (harm only)`)),
      number("now", (gate) => fixed(gate.stable, 3)),
      number("tried", (gate) => fixed(gate.candidate, 3)),
      number("worse by", (gate) => `${fixed(gate.worse_low, 3)} to ${fixed(gate.worse_high, 3)}`),
      number("may be", (gate) => fixed(gate.limit, 3)),
      text("verdict", (gate) => gate.verdict, (gate) => ({ harm: BAD, passed: GOOD, open: WARN })[gate.verdict]),
    ],
  },
  tenants: {
    key: (one) => one.tenant,
    columns: [
      name("tenant", (one) => (one.tenant === "*" ? "* (everybody else)" : one.tenant)),
      number("open jobs", (one) => whole(one.open_jobs)),
      number("at most", (one) => limit(one.concurrent_jobs, whole)),
      number("used in an hour", (one) => seconds(one.used_gpu_s)),
      number("reserved", (one) => seconds(one.reserved_gpu_s)),
      number("at most", (one) => limit(one.gpu_seconds_per_hour, seconds)),
      number("stored", (one) => bytes(one.stored)),
      number("at most", (one) => limit(one.stored_bytes, bytes)),
      number("weight", (one) => fixed(one.weight, 1)),
      text("priority", (one) => (one.priority ? "may ask" : "no")),
      text("own values", (one) => one.own.join(", ")),
    ],
  },
};

const refuses = (node) => Object.keys(node.refused).length > 0;

function loaded(node) {
  const refused = Object.entries(node.refused).map(([version, reason]) => `not ${version} (${reason})`);
  return `${node.node_id}: ${[...node.loaded, ...refused].join(", ")}`;
}

function reasons(made) {
  const about = made.refused ? `${made.refused}${made.refused_param ? ` (${made.refused_param})` : ""}: ` : "";
  if (!made.reasons.length) return make("span", about || "-");
  const details = make("details");
  const list = make("ol");
  details.append(make("summary", about + made.reasons[0]), list);
  list.append(...made.reasons.map((reason) => make("li", reason)));
  return details;
}

const drawn = new Map(); // by table: its body, and its rows by key

function tableOf(id) {
  if (!drawn.has(id)) {
    const head = make("thead"), line = make("tr"), body = make("tbody");
    for (const column of TABLES[id].columns) {
      const cell = make("th", column.heading, column.kind === NUMBER ? NUMBER : "");
      cell.scope = "col";
      line.append(cell);
    }
    head.append(line);
    at(id).append(head, body);
    drawn.set(id, { body, rows: new Map() });
  }
  return drawn.get(id);
}

// Rows keep their elements, so that what is opened or marked stays so.
function draw(id, rows) {
  const table = tableOf(id), { key, columns } = TABLES[id];
  const next = new Map();
  for (const row of rows) {
    const name_of = key(row);
    const line = table.rows.get(name_of) || newLine(columns, row);
    columns.forEach((column, index) => refresh(line.children[index], column, row));
    next.set(name_of, line);
  }
  table.rows = next;
  const lines = next.size ? [...next.values()] : [emptyLine(columns.length)];
  const shown = [...table.body.children];
  if (shown.length !== lines.length || lines.some((line, index) => line !== shown[index])) {
    table.body.replaceChildren(...lines);
  }
}

function newLine(columns, row) {
  const line = make("tr");
  for (const column of columns) {
    const cell = make("td", undefined, column.kind);
    if (column.build) cell.append(column.build(row));
    line.append(cell);
  }
  return line;
}

function refresh(cell, column, row) {
  if (column.build) return;
  write(cell, column.show(row));
  const kind = [column.kind, column.tone ? column.tone(row) : ""].filter(Boolean).join(" ");
  if (cell.className !== kind) cell.className = kind;
}

function emptyLine(columns) {
  const line = make("tr"), cell = make("td", "none", "empty");
  cell.colSpan = columns;
  line.append(cell);
  return line;
}

// ---- bars

function bar(label, share, value, kind) {
  const svg = document.createElementNS(SVG, "svg"), rect = document.createElementNS(SVG, "rect");
  svg.setAttribute("aria-hidden", "true"); // the number beside it says the same
  rect.setAttribute("class", kind);
  rect.setAttribute("height", "100%");
  rect.setAttribute("rx", "2");
  rect.setAttribute("width", `${Math.max(0.5, Math.min(100, 100 * share)).toFixed(2)}%`);
  svg.append(rect);
  return [make("span", label), svg, make("span", value, "value")];
}

function drawPlans(plans) {
  const counts = new Map();
  for (const { plan, param, count } of plans) {
    const label = param ? `${plan} (${param})` : plan;
    counts.set(label, (counts.get(label) || 0) + count);
  }
  const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const rows = [...counts].sort((one, other) => other[1] - one[1]);
  const bars = rows.flatMap(([label, count]) =>
    bar(label, count / all, `${whole(count)} (${percent(count / all)})`, "observed"));
  at("plans").replaceChildren(...(bars.length ? bars : [make("span", "none yet", "part")]));
}

function drawCompared(parts) {
  const bars = parts.flatMap((part) => {
    const show = part.part === "qoe" ? (value) => fixed(value, 2) : seconds;
    const title = part.part === "qoe" ? "QoE, 1 to 5" : part.part;
    const most = part.part === "qoe" ? 5 : Math.max(part.predicted_p95, part.observed_p95, 1e-6);
    const of = (what, at_share) => {
      const value = part[`${what}_${at_share}`];
      return bar(`${at_share} ${what}`, value / most, show(value), what);
    };
    return [
      make("span", `${title} (${whole(part.outcomes)} ${part.outcomes === 1 ? "job" : "jobs"})`, "part"),
      ...of("predicted", "p50"), ...of("observed", "p50"), ...of("predicted", "p95"), ...of("observed", "p95"),
    ];
  });
  at("compared").replaceChildren(...bars);
  write(at("compared-more"), bars.length ? "Of the last finished jobs that this scheduler placed." : "No job has ended yet.");
}

// ---- the whole page

function show(snapshot) {
  const { nodes, pools, tenants, paces, plans, in_all: all } = snapshot;
  write(at("scheduler"), snapshot.scheduler);
  document.title = `${snapshot.scheduler} - AdaptiveGen`;
  write(at("healthy"), `${all.healthy} / ${all.nodes}`);
  write(at("open"), whole(snapshot.open_jobs));
  write(at("waiting"), whole(pools.reduce((sum, pool) => sum + pool.waiting, 0)));
  const decided = (some) => whole(some.reduce((sum, one) => sum + one.count, 0));
  write(at("decided"), decided(plans));
  write(at("refused"), decided(plans.filter((one) => one.plan === "refuse")));
  snapshot.gates = snapshot.lines.flatMap((line) =>
    line.gates.map((gate) => ({ line: line.line, version: line.candidate, ...gate })));
  for (const id of Object.keys(TABLES)) draw(id, snapshot[id]);
  for (const [id, rows] of Object.entries({ nodes, pools, tenants, paces })) {
    write(at(`${id}-more`), all[id] > rows.length ? `The first ${rows.length} of ${all[id]}.` : "");
  }
  drawPlans(plans);
  drawCompared(snapshot.compared);
}

let source = null;
let heard_ms = null; // when the last snapshot came, by this page's clock
let opened_ms = 0;
let refused = ""; // what the scheduler said where it does not let us follow

function open() {
  if (source) source.close();
  opened_ms = performance.now();
  const own = new EventSource(STREAM);
  source = own;
  own.addEventListener("snapshot", (event) => {
    show(JSON.parse(event.data));
    heard_ms = performance.now();
    refused = "";
    judge();
  });
  own.addEventListener("error", () => {
    const lost = own.readyState !== EventSource.CLOSED; // then a browser comes back by itself; not where it was refused
    if (lost) refused = "";
    judge();
    if (lost) return;
    setTimeout(() => own === source && open(), RETRY_MS);
    why().then((said) => {
      if (own === source) refused = said;
      judge();
    });
  });
}

// Why a stream was refused, which an EventSource does not tell; empty where it no longer is, or nobody answers.
async function why() {
  const asking = new AbortController();
  const late = setTimeout(() => asking.abort(), RETRY_MS);
  try {
    const answer = await fetch(STREAM, { signal: asking.signal });
    return answer.ok ? "" : (await answer.json()).error.message;
  } catch {
    return "";
  } finally {
    clearTimeout(late);
    asking.abort(); // also of a stream, which would not end
  }
}

function judge() {
  const now_ms = performance.now(), link = at("link");
  const silent_ms = heard_ms === null ? null : now_ms - heard_ms;
  const known_state = silent_ms === null ? "waiting" : silent_ms > STALE_MS ? "stale" : "live";
  const state = refused ? "refused" : known_state;
  link.className = state;
  document.body.className = state;
  const old = `nothing new for ${Math.round((silent_ms || 0) / 1000)} s; trying to reach the scheduler`;
  write(link, { waiting: "connecting", stale: old, live: "live", refused: `refused: ${refused}; asking again` }[state]);
}

setInterval(() => {
  judge();
  const last_ms = Math.max(opened_ms, heard_ms === null ? 0 : heard_ms);
  if (performance.now() - last_ms > RENEW_MS) open();
}, 1000);
open();
