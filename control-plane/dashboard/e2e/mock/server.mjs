// A stand-in for the control plane: serves `dist` as the server does, and answers the API from a made-up fleet. For looking at
// the dashboard without a server, and for its tests of layout; what the real API answers is tested against the real one.
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import * as fleet from "./fleet.mjs";

const DIST = process.env.EDGEWRIGHT_DASHBOARD_OUT ?? join(fileURLToPath(new URL(".", import.meta.url)), "../../dist");
const PORT = Number(process.env.PORT ?? 4173);
const POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
const KINDS = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".map": "application/json" };
const ROLES = { admin: "admin", ola: "operator", vera: "viewer" };
const passwords = { admin: "admin", ola: "ola", vera: "vera" };

const users = Object.entries(ROLES).map(([name, role]) => ({ name, role, created_at: Date.now() - 8e9, disabled: false, last_login_at: name === "vera" ? null : Date.now() - 9e5 }));
let tokens = [{ id: "t1", name: "ci", user: "admin", role: "operator", created_at: Date.now() - 9e8, expires_at: Date.now() + 9e9, used_at: Date.now() - 60_000 }];

function page(all, query) {
  const limit = Number(query.get("limit") ?? 100);
  const from = Number(query.get("cursor") ?? 0);
  return { items: all.slice(from, from + limit), next_cursor: from + limit < all.length ? String(from + limit) : null };
}

function devices(query) {
  const search = query.get("search") ?? "";
  const labels = query.getAll("label").map((label) => label.split("="));
  const version = query.get("version");
  const found = fleet.devices.filter(
    (device) =>
      (device.id.includes(search) || Object.values(device.labels).some((value) => value.includes(search))) &&
      (!query.get("board") || device.board === query.get("board")) &&
      (!query.get("online") || device.online === (query.get("online") === "true")) &&
      (!version || `mnist@${device.reported.slots[0].active.version}` === version) &&
      labels.every(([key, value]) => device.labels[key] === value),
  );
  return page(found, query);
}

const problem = (status, detail) => ({ status, body: { type: "about:blank", title: { 401: "Unauthorized", 403: "Forbidden", 404: "Not Found" }[status] ?? "Error", status, detail } });
const ok = (body) => ({ status: 200, body });
const found = (body, what) => (body === undefined ? problem(404, `there is no ${what}`) : ok(body));
const inTime = (query) => [Number(query.get("from")), Number(query.get("to"))];

function answer(method, path, query, body, who) {
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  const [head, id, sub, last] = parts;
  if (method === "GET") {
    switch (head) {
      case "me": return ok({ user: who, role: ROLES[who], expires_at: Date.now() + 8e6 });
      case "overview": return ok(fleet.overview());
      case "groups": return ok(page([{ name: "berlin", selector: { labels: { site: "berlin" } }, devices: 2500, created_at: 1 }], query));
      case "devices":
        if (id === undefined) return ok(devices(query));
        if (sub === "events") return ok(page(fleet.events(id), query));
        return found(fleet.devices.find((device) => device.id === id), `device ${id}`);
      case "rollouts":
        if (id === undefined) return ok(page(fleet.summaries(), query));
        if (sub === "why") return found(fleet.why(id, last), `member ${last}`);
        return found(fleet.rollouts().find((rollout) => rollout.id === id), `rollout ${id}`);
      case "versions":
        if (id === undefined) return ok(page(fleet.versions, query));
        if (sub === "lineage") return ok(fleet.lineage(id));
        return found(fleet.versions.find((version) => version.name === id), `version ${id}`);
      case "jobs": return id === undefined ? ok(page(fleet.jobs(), query)) : found(fleet.jobs().find((job) => job.id === id), `job ${id}`);
      case "datasets": return ok(page(fleet.datasets, query));
      case "incidents": {
        if (id !== undefined) return found(fleet.incidents.find((one) => one.id === id), `incident ${id}`);
        return ok(page(fleet.incidents.filter((one) => query.get("open") !== "true" || one.resolved_at === null), query));
      }
      case "audit": return ROLES[who] === "admin" ? ok(page(fleet.audit, query)) : problem(403, "this needs the role admin");
      case "users": return ok(page(users, query));
      case "tokens": return ok(page(tokens, query));
      case "telemetry": {
        if (id === "metrics") return ok({ items: fleet.metrics, next_cursor: null });
        const [metric, how] = [query.get("metric"), query.get("aggregation")];
        const unit = fleet.metrics.find((one) => one.name === metric)?.unit ?? "";
        const level = metric === "latency_p50_us" ? 420 : metric.includes("latency") ? { avg: 1100, max: 1900 }[how] : metric === "rss_bytes" ? 41e6 : metric === "failed" ? 0.4 : 1200;
        return ok(fleet.wave(...inTime(query), unit, level, level / 12, [{}]));
      }
      case "feedback": {
        const kind = query.get("kind");
        const shift = { "mnist@v1.0": 0.9, "mnist@v1.1": 1.2 }[query.get("version")] ?? 1;
        const level = { ctr: 0.048, conversion: 0.011, correction: 0.004, dwell: 5200 }[kind] * shift;
        return ok(fleet.wave(...inTime(query), kind === "dwell" ? "ms" : "share", level, level / 9, [{}]));
      }
    }
    return problem(404, "there is nothing here");
  }
  if (ROLES[who] === "viewer") return problem(403, "this needs the role operator");
  if (head === "rollouts" && sub === "approve") fleet.approve(body?.wave);
  else if (head === "rollouts" && sub !== undefined) fleet.order(sub);
  if (head === "rollouts") return ok(fleet.rollouts()[0]);
  if (head === "users" && method === "POST") {
    ROLES[body.name] = body.role;
    passwords[body.name] = body.password;
    users.push({ name: body.name, role: body.role, created_at: Date.now(), disabled: false, last_login_at: null });
    return { status: 201, body: users.at(-1) };
  }
  if (head === "incidents") {
    const incident = fleet.incidents.find((one) => one.id === id);
    if (incident) incident[sub === "resolve" ? "resolved_at" : "acknowledged_at"] = Date.now();
    return found(incident, `incident ${id}`);
  }
  if (head === "tokens" && method === "POST") {
    const token = { id: `t${tokens.length + 1}`, name: body.name, user: who, role: body.role, created_at: Date.now(), expires_at: Date.now() + body.days * 86_400_000, used_at: null };
    tokens.push(token);
    return { status: 201, body: { token, secret: "ew_4f2c9d1e8b7a" } };
  }
  if (head === "tokens") {
    tokens = tokens.filter((token) => token.id !== id);
    return { status: 204 };
  }
  if (head === "devices" && sub === "labels") {
    const device = fleet.devices.find((one) => one.id === id);
    device.labels = body;
    return ok(device);
  }
  return { status: 204 };
}

async function read(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text === "" ? undefined : JSON.parse(text);
}

function stream(response) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  let id = 0;
  const timer = setInterval(() => {
    id += 1;
    response.write(`event: rollout\nid: ${id}\ndata: {"kind":"rollout","id":"x","at":${Date.now()},"change":"wave"}\n\n`);
  }, 2000);
  response.write(": begins\n\n");
  response.on("close", () => clearInterval(timer));
}

function file(path, response) {
  const wanted = join(DIST, normalize(path));
  const isThere = wanted.startsWith(DIST) && existsSync(wanted) && statSync(wanted).isFile();
  const served = isThere ? wanted : join(DIST, "index.html");
  const isHashed = isThere && path.startsWith("/assets/");
  response.writeHead(200, {
    "Content-Type": KINDS[extname(served)] ?? "application/octet-stream",
    "Content-Security-Policy": POLICY,
    "Cache-Control": isHashed ? "public, max-age=31536000, immutable" : "no-cache",
    "X-Content-Type-Options": "nosniff",
  });
  createReadStream(served).pipe(response);
}

createServer(async (request, response) => {
  const url = new URL(request.url, "http://mock");
  const json = ({ status, body }, headers = {}) => {
    response.writeHead(status, { "Content-Type": status >= 400 ? "application/problem+json" : "application/json", ...headers });
    response.end(body === undefined ? undefined : JSON.stringify(body));
  };
  if (url.pathname === "/mock/restart") {
    fleet.restart();
    return json({ status: 204 });
  }
  if (!url.pathname.startsWith("/api/")) return file(url.pathname, response);
  const path = url.pathname.replace("/api/v1", "");
  const body = request.method === "GET" ? undefined : await read(request);
  const who = /edgewright=(\w+)/.exec(request.headers.cookie ?? "")?.[1];
  if (path === "/login") {
    const role = ROLES[body.user];
    if (role === undefined || body.password !== passwords[body.user]) return json(problem(401, "the name or the password is wrong"));
    return json(ok({ token: "t", expires_at: Date.now() + 8e6, user: body.user, role }), { "Set-Cookie": `edgewright=${body.user}; HttpOnly; SameSite=Strict; Path=/` });
  }
  if (who === undefined || ROLES[who] === undefined) return json(problem(401, "a token is needed"));
  if (request.method !== "GET" && request.headers["x-edgewright"] !== "1") return json(problem(403, "the header X-Edgewright is missing"));
  if (path === "/logout") return json({ status: 204 }, { "Set-Cookie": "edgewright=; Path=/; Max-Age=0" });
  if (path === "/stream") return stream(response);
  if (path.endsWith("loss.svg")) {
    response.writeHead(200, { "Content-Type": "image/svg+xml" });
    return response.end('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 100"><path d="M0 90 Q60 20 300 10" fill="none" stroke="#2563c9"/></svg>');
  }
  return json(answer(request.method, path, url.searchParams, body, who));
}).listen(PORT, "127.0.0.1", () => console.log(`http://127.0.0.1:${PORT}`));
