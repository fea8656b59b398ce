// A made-up fleet of 10,000 devices with versions, jobs and a rollout that goes on by the clock and is stopped by a gate.

const now = () => Date.now();
const hex = (seed) => {
  let state = seed * 2654435761 + 1;
  return Array.from({ length: 64 }, () => ((state = (state * 1103515245 + 12345) % 2147483648) >> 12) % 16)
    .map((digit) => Math.abs(digit).toString(16))
    .join("");
};
const uuid = (n) => `0198c0de-0000-7000-8000-${String(n).padStart(12, "0")}`;
const pick = (list, n) => list[n % list.length];

const BOARDS = ["raspberry-pi-4", "jetson-orin-nano", "generic-arm64"];
const RINGS = ["canary", "early", "late"];
const trial = { duration_ms: 30000, requests_min: 20, failed_permille_max: 10, latency_p99_us_max: null, agreement_permille_min: 700 };
const ref = (version) => ({ model: "mnist", version, version_id: uuid(version === "v1.0" ? 1 : 2), bundle: hex(version === "v1.0" ? 1 : 2) });
const born = now() - 40 * 86_400_000;

export const devices = Array.from({ length: 10_000 }, (_, n) => {
  const id = `cam-${String(n).padStart(5, "0")}`;
  const board = pick(BOARDS, n);
  const version = n % 7 === 0 ? "v1.1" : "v1.0";
  const online = n % 9 !== 3;
  return {
    id,
    board,
    agent_version: "0.1.0",
    labels: { ring: pick(RINGS, n), site: pick(["berlin", "osaka", "lima", "pune"], n >> 2) },
    online,
    enrolled_at: born + n * 1000,
    seen_at: online ? now() - (n % 50) * 1000 : now() - 7_200_000,
    revoked_at: n === 4242 ? now() - 86_400_000 : null,
    generation: 3,
    desired_at: now() - 86_400_000,
    chunk_bytes: 65536,
    assignments: [{ slot: "default", ...ref(version), bundle_bytes: 1800, rollout: uuid(900), trial }],
    reported: {
      device: id,
      board,
      agent_version: "0.1.0",
      at: now() - 4000,
      generation: n % 31 === 0 ? 2 : 3,
      slots: [
        {
          slot: "default",
          active: ref(version),
          last_good: ref("v1.0"),
          runtime: n % 2 ? "tract" : "onnxruntime",
          phase:
            n % 31 === 0
              ? { name: "fetching", bundle: hex(2), chunks_done: 7, chunks_total: 16 }
              : n % 97 === 5
                ? { name: "waiting", bundle: hex(2), until: now() + 60000, reason: "the day's budget of 2 MiB is spent", waits_for: "budget" }
                : { name: "idle" },
          attempt:
            n % 53 === 0
              ? { generation: 2, rollout: uuid(899), version: ref("v1.1"), outcome: { name: "rolled_back", detail: "41 of 100 requests agree, at least 70 are asked for" }, at: now() - 3_600_000 }
              : { generation: 3, rollout: uuid(900), version: ref(version), outcome: { name: "committed" }, at: now() - 86_000_000 },
        },
      ],
      disk_free_bytes: 812_000_000,
      api: "127.0.0.1:8090",
    },
  };
});

const schema = { format: "idx", task: "image_classification", digest: hex(7), shape: [1, 28, 28], labels: [..."0123456789"], train_count: 60000, test_count: 10000, remarks: ["5,000 training samples are held back for the search"] };

const front = Array.from({ length: 24 }, (_, index) => {
  const latency_us = 90 + ((index * 37) % 24) * 22;
  return {
    index,
    cell: pick(["0->2 sep3 | 1->2 max3 | 2->3 skip | 0->3 conv3", "0->2 conv3 | 1->2 skip | 0->3 sep5 | 2->3 sep3", "0->2 sep3 | 1->2 sep3 | 1->3 avg3 | 2->3 skip"], index),
    channels: 8,
    accuracy: 0.9 + 0.08 * (1 - Math.exp(-latency_us / 180)) - ((index * 13) % 7) * 0.004,
    weight_bytes: 3000 + ((index * 29) % 24) * 900,
    latency_us,
    on_front: false,
    chosen: index === 6,
  };
});
const CELL = "0->2 sep3 | 1->2 max3 | 2->3 skip | 0->3 conv3 | 3->4 sep5 | 1->4 skip";
const report = {
  job: uuid(500),
  seed: 7,
  dataset: schema,
  search: { method: "evolution", seconds: 812.4, arch_steps: 0, cells_judged: 240, repairs: 0, skip_share: 0.333, cell: CELL, space: "image-rich", front },
  train_seconds: 322,
  train_epochs: 20,
  quantise_seconds: 9,
  compression: {
    steps: [
      { step: "trained, FP32", parameters: 31210, bytes: 131_000, macs: 2_310_000, accuracy: 0.9914, us_ort: 310.2, us_tract: 402.9, kernels: { integer: 0, float: 14 } },
      { step: "pruned by 30 %", parameters: 21870, bytes: 94_000, macs: 1_610_000, accuracy: 0.9907, us_ort: 251.7, us_tract: 331.4, kernels: { integer: 0, float: 14 } },
      { step: "INT8", parameters: 21870, bytes: 33_400, macs: 1_610_000, accuracy: 0.9901, us_ort: 148.3, us_tract: null, kernels: { integer: 13, float: 1 } },
    ],
    seconds: 61,
  },
  model: {
    form: "int8", parameters: 21870, macs: 1_610_000, activation_bytes: 12544, accuracy_fp32: 0.9914, accuracy_int8: 0.9901, accuracy_int8_tract: 0.99,
    bytes_fp32_onnx: 131_000, bytes_int8_onnx: 33_400, us_per_inference: {}, metrics: [], remarks: ["INT8 is not faster than FP32 on tract: 402 us against 401 us"],
  },
  estimate: { us: 640, here_us: 148 },
};

const version = (n, name, state, parent) => ({
  id: uuid(n), name, model: name.split("@")[0], version: name.split("@")[1], board: "raspberry-pi-4", dataset: "mnist", state, bundle: hex(n), bundle_bytes: 1800,
  size_bytes: 41_200, job: uuid(499 + n), parent, check_skipped: false, report: { ...report, search: parent ? null : report.search },
  files: [
    { name: "model.onnx", digest: hex(n + 10), size_bytes: 33_400 },
    { name: "golden.safetensors", digest: hex(n + 11), size_bytes: 6400 },
    { name: "lineage.jsonl", digest: hex(n + 12), size_bytes: 1400 },
  ],
  created_at: now() - (10 - n) * 86_400_000,
});
export const versions = [version(2, "mnist@v1.1", "canary", uuid(1)), version(1, "mnist@v1.0", "live", null)];

const artefact = (name, n) => ({ name, digest: hex(n) });
const steps = (of, parent) => [
  { step: "data", subjects: [artefact("mnist", 7)], materials: [], at: born, by: "edgewright 0.1.0", details: { format: "idx", shape: [1, 28, 28], train_count: 60000, test_count: 10000 } },
  ...(parent ? [] : [{ step: "search", subjects: [artefact("arch.json", 40)], materials: [artefact("mnist", 7)], at: born + 9e6, by: `job ${uuid(500)}`, details: { seed: 7, method: "evolution", board: "raspberry-pi-4", cell: CELL, seconds: 812.4 } }]),
  { step: "training", subjects: [artefact("weights.safetensors", 41 + of), artefact("model-fp32.onnx", 43 + of)], materials: [artefact("mnist", 7), artefact("arch.json", 40)], at: born + 1e7, by: `job ${uuid(499 + of)}`, ...(parent && { parent }), details: { seed: 7, epochs: 20, seconds: 322, accuracy: 0.99141 } },
  { step: "compression", subjects: [artefact("model.onnx", of + 10)], materials: [artefact("weights.safetensors", 41 + of), artefact("model-fp32.onnx", 43 + of), artefact("mnist", 7)], at: born + 1.1e7, by: `job ${uuid(499 + of)}`, details: { accuracy: 0.9901, size_bytes: 33400, golden_tolerance: 0.02 } },
  { step: "signing", subjects: [artefact("model.onnx", of + 10)], materials: [artefact("model.onnx", of + 10)], at: born + 1.2e7, by: "release key 3f2a91", details: { board: "raspberry-pi-4" } },
];
export function lineage(name) {
  const first = { version: "mnist@v1.0", id: uuid(1), steps: steps(1) };
  if (name === "mnist@v1.0") return [first];
  return [{ version: "mnist@v1.1", id: uuid(2), steps: steps(2, { version: "mnist@v1.0", id: uuid(1), bundle: hex(1) }) }, first];
}

const job = (n, state, extra) => ({
  id: uuid(n), task: "search", model: "mnist", dataset: "mnist", board: "raspberry-pi-4", seed: 7, threads: 2,
  budget: { search_steps: 120, train_epochs: 20, channels: 8, cells: 3, nodes: 3, seconds: null }, method: "evolution", parent: null, state,
  progress: { stage: "done", step: 1, total: 1, loss: null, accuracy: null, resumed_from: null, message: null }, error: null, version: null, report: null, cell: null, pid: null,
  created_at: now() - 86_400_000, started_at: now() - 86_300_000, finished_at: null, ...extra,
});
export const jobs = () => [
  job(503, "running", { progress: { stage: "search", step: 10 + (Math.floor(now() / 1000) % 90), total: 120, loss: 0.4321, accuracy: 0.9312, resumed_from: 40, message: "generation 7 of 12, the best cell has 95.1 %" } }),
  job(502, "failed", { error: "the data set changed since it was registered: train-images-idx3-ubyte", finished_at: now() - 4e6 }),
  job(501, "done", { task: "retrain", method: null, version: "mnist@v1.1", report: { ...report, search: null }, finished_at: now() - 8e6 }),
  job(500, "done", { version: "mnist@v1.0", report, cell: CELL, finished_at: now() - 9e7 }),
];

export const datasets = [{ id: "mnist", path: "/data/mnist", schema, registered_at: born }, { id: "italy", path: "/data/italy", schema: { ...schema, format: "ts", task: "series_classification", shape: [1, 24], labels: ["1", "2"], train_count: 67, test_count: 1029, remarks: [] }, registered_at: born }];

// One rollout ended well; the other moves: a wave each 4 s, and is stopped by its gate in the second one.
const STEP_MS = 4000;
const orders = { paused: false, aborted: false, approved: [] };
let begun = now();
export function restart() {
  begun = now();
  Object.assign(orders, { paused: false, aborted: false, approved: [] });
}
export function order(name) {
  if (name === "pause") orders.paused = true;
  if (name === "resume") orders.paused = false;
  if (name === "abort") orders.aborted = true;
}
export function approve(wave) {
  orders.approved.push(wave ?? 1);
}
const policy = {
  waves: [{ count: 5 }, { percent: 20 }, { percent: 100, approval: true }], pause_ms: 10000, failed_permille_max: 50, device_timeout_ms: 900_000, rollback_committed: false, update_bytes_max: null,
  gates: [
    { signal: "ctr", min: 0.04, false_stop: 0.05, false_open: 0.05, scope: "rollout", from_wave: 1, wave_min: 1000, wait_ms: 3_600_000, then: "pause" },
    { signal: "error_rate", max: 0.01, false_stop: 0.01, false_open: 0.05, scope: "rollout", from_wave: 1, wave_min: 100, wait_ms: 3_600_000, then: "stop" },
  ],
  windows: [{ days: ["mon", "tue", "wed", "thu", "fri"], from: "22:00", to: "05:00", zone: "Europe/Berlin" }],
};
function moving() {
  const tick = orders.aborted ? 99 : Math.floor((now() - begun) / STEP_MS);
  const stopped = tick >= 6;
  const wave = tick < 2 ? 0 : 1;
  const members = devices.slice(0, 200).map((device, n) => {
    const own = n < 5 ? 0 : n < 45 ? 1 : 2;
    const through = own < wave || (own === wave && tick % 2 === 1 && !stopped);
    let state = own > wave ? "pending" : through ? "committed" : tick === 0 || own === wave ? "assigned" : "pending";
    if (n === 7 && wave === 1) state = "failed";
    if (stopped) state = own === 0 ? "committed" : own === 1 ? (n === 7 ? "failed" : "reverted") : "skipped";
    const reason = { pending: "waits for wave 3 to be approved: `edgewright rollout approve`", assigned: "fetching, 7 of 16 chunks", committed: "passed its trial", failed: "rolled back: 41 of 100 requests agree", reverted: "got back what it had", skipped: "the rollout ended before it was asked" }[state];
    return { device: device.id, wave: own, state, reason, generation: state === "pending" ? null : 4, assigned_at: state === "pending" ? null : begun, finished_at: null };
  });
  const of = Math.min(tick, 6) * 900;
  const hits = Math.round(of * (wave === 0 ? 0.052 : 0.031));
  return {
    id: uuid(901), version: "mnist@v1.1", version_id: uuid(2), model: "mnist", board: "raspberry-pi-4", slot: "default", bundle: hex(2), selector: { devices: [], labels: { site: "berlin" } }, policy, trial,
    state: orders.aborted ? "aborted" : stopped ? "stopped" : orders.paused ? "paused" : "running", wave, wave_closed_at: tick === 1 ? now() : null,
    reason: orders.aborted ? "by an operator" : stopped ? "gate ctr stops at wave 2: 3.1 % of 5400 impressions were clicked, at least 4.0 % are asked for" : orders.paused ? "by an operator" : `wave ${wave + 1}: 40 devices under way, 3 offline`,
    approved: orders.approved, waived: [], devices: members,
    gates: [
      { gate: 0, signal: "ctr", wave, verdict: stopped ? "stop" : tick > 1 && wave === 0 ? "open" : "more", hits, of, text: `ctr: ${hits} of ${of} impressions were clicked; with the stated errors the share lies between 2.8 % and 3.6 %` },
      { gate: 1, signal: "error_rate", wave, verdict: "open", hits: 3, of: 4100, text: "error_rate: 3 of 4100 requests failed; the share is at most 0.4 %" },
    ],
    history: [
      { at: begun, text: "created for 200 devices in 3 waves" },
      { at: begun + 1, text: "wave 1 opened" },
      ...(wave > 0 ? [{ at: begun + 2 * STEP_MS, text: "wave 2 opened" }] : []),
      ...(stopped ? [{ at: begun + 6 * STEP_MS, text: "stopped by the gate on ctr" }] : []),
    ],
    bytes_published: 1_900_000, created_at: begun, finished_at: stopped ? begun + 6 * STEP_MS : null,
  };
}
export function rollouts() {
  const live = moving();
  const done = { ...live, id: uuid(900), version: "mnist@v1.0", version_id: uuid(1), state: "completed", wave: 2, reason: "all devices that could be reached have it", gates: [], policy: { ...policy, gates: [], windows: [] }, devices: live.devices.map((member) => ({ ...member, state: "committed", reason: "passed its trial" })), created_at: begun - 86_400_000, finished_at: begun - 80_000_000 };
  return [live, done];
}
const STATES = ["pending", "assigned", "committed", "failed", "reverted", "skipped"];
const countOf = (members) => Object.fromEntries(STATES.map((state) => [state, members.filter((member) => member.state === state).length]));
/** As the list has them: members in numbers. */
export function summaries() {
  return rollouts().map(({ devices: members, trial: _trial, gates: _gates, history: _history, ...rest }) => ({ ...rest, members: { total: members.length, ...countOf(members) } }));
}
export function why(rollout, device) {
  const found = rollouts().find((one) => one.id === rollout);
  const member = found?.devices.find((one) => one.device === device);
  if (member === undefined) return undefined;
  const holds = member.state === "pending" ? ["waits for wave 3", "waits for wave 3 to be approved: `edgewright rollout approve`", "waits for its window, which opens at 2026-12-01 21:00 UTC"] : [];
  return { ...member, rollout: found.reason, waits_for: holds, gates: found.gates };
}

export const incidents = [
  { id: uuid(701), kind: "rollout_stopped", severity: "critical", title: "the rollout of mnist@v1.1 was stopped by a gate", subject: `rollout ${uuid(901)}`, opened_at: now() - 600_000, updated_at: now() - 500_000, acknowledged_at: null, resolved_at: null, count: 1, evidence: [{ at: now() - 600_000, text: "gate ctr: 3.1 % of 5,400 impressions were clicked, at least 4.0 % are asked for", link: `/api/v1/rollouts/${uuid(901)}` }] },
  { id: uuid(702), kind: "devices_offline", severity: "warning", title: "1,111 devices went offline within 5 minutes", subject: "fleet", opened_at: now() - 3_600_000, updated_at: now() - 60_000, acknowledged_at: now() - 3_000_000, resolved_at: null, count: 3, evidence: [{ at: now() - 3_600_000, text: "11 % of the fleet; usual is 0.4 %" }] },
  { id: uuid(703), kind: "job_failed", severity: "warning", title: "a job for mnist failed", subject: `job ${uuid(502)}`, opened_at: now() - 5e6, updated_at: now() - 4e6, acknowledged_at: null, resolved_at: now() - 3e6, count: 1, evidence: [{ at: now() - 4e6, text: "the data set changed since it was registered", link: `/api/v1/jobs/${uuid(502)}` }] },
];

export function overview() {
  const tally = (key) => {
    const counts = new Map();
    for (const device of devices) counts.set(key(device), (counts.get(key(device)) ?? 0) + 1);
    return [...counts];
  };
  const open = rollouts().filter((rollout) => rollout.finished_at === null);
  const online = devices.filter((device) => device.online && device.revoked_at === null).length;
  return {
    devices: { total: devices.length, online, offline: devices.length - online - 1, revoked: 1 },
    versions: tally((device) => `mnist@${device.reported.slots[0].active.version}`).map(([name, count]) => ({ version: name, slot: "default", devices: count })),
    boards: tally((device) => device.board).map(([board, count]) => ({ board, devices: count })),
    rollouts: open.map((rollout) => ({ id: rollout.id, version: rollout.version, state: rollout.state, wave: rollout.wave, waves: 3, counts: countOf(rollout.devices) })),
    incidents: { open: incidents.filter((one) => one.resolved_at === null).length, critical: incidents.filter((one) => one.resolved_at === null && one.severity === "critical").length },
    jobs: { running: 1, queued: 0 },
    ingest: { events: 41_233, feedback: 1_212_400, telemetry: 88_231_442, per_s: 31_204.5 },
    at: now(),
  };
}

export const audit = Array.from({ length: 900 }, (_, n) => ({ id: 900 - n, at: now() - n * 240_000, user: pick(["admin", "ola", "ci"], n), role: pick(["admin", "operator", "operator"], n), operation: pick(["create_rollout", "label_device", "login", "pause_rollout", "start_search"], n), target: pick([uuid(901), "cam-00042", null], n), status: n % 13 === 4 ? 403 : 200, from: "10.0.3.17", detail: n % 13 === 4 ? "this needs the role operator" : null }));

export const metrics = [
  { name: "requests", unit: "requests", kind: "counter" },
  { name: "failed", unit: "requests", kind: "counter" },
  { name: "latency_p50_us", unit: "us", kind: "gauge" },
  { name: "latency_p99_us", unit: "us", kind: "gauge" },
  { name: "rss_bytes", unit: "bytes", kind: "gauge" },
  { name: "impressions", unit: "impressions", kind: "counter" },
  { name: "events_rolled_back", unit: "events", kind: "counter" },
];

export function wave(from, to, unit, level, spread, names) {
  const step_ms = Math.max(60_000, Math.round((to - from) / 180));
  const points = (shift) => Array.from({ length: Math.floor((to - from) / step_ms) }, (_, n) => {
    const at = from + n * step_ms;
    const gap = n > 60 && n < 66;
    return [at, gap ? null : level * (1 + shift) + spread * (Math.sin(n / 9 + shift * 5) + 0.6 * Math.sin(n * 1.7 + shift))];
  });
  return { metric: "m", unit, step_ms, series: names.map((labels, n) => ({ labels, points: points(n * 0.2) })) };
}

export function events(device) {
  const kinds = [["trial_passed", "98 of 100 requests agree"], ["version_activated", "mnist@v1.1 on onnxruntime, 148 us"], ["bundle_staged", "41,200 bytes in 3 files"], ["download_resumed", "went on from chunk 4 of 16"], ["download_started", "16 chunks"], ["agent_started", "0.1.0"], ["budget_spent", "2 MiB of the day"], ["rolled_back", "41 of 100 requests agree"]];
  return Array.from({ length: 120 }, (_, n) => ({ id: uuid(10_000 + n), device, at: now() - n * 431_000, received_at: now() - n * 431_000, slot: "default", bundle: hex(2), kind: kinds[n % kinds.length][0], detail: kinds[n % kinds.length][1] }));
}
