// BullMQ for Node. Setting after https://docs.bullmq.io/guide/workers/concurrency and .../guide/queues/adding-bulks;
// finished jobs are removed, as .../guide/going-to-production advises.
//
//   node bullmq_npm.mjs worker               runs jobs, BENCH_SETTING says how many at a time
//   node bullmq_npm.mjs produce JSON         enqueues what produce.py describes, and prints what it does
//
// Its ledger is the file of ledger.py, written whenever nothing has run for 20 ms: Node cannot map files into memory.
// Each process writes only what it ran itself, so that two can share the file.

import { createRequire } from "node:module";
import { fstatSync, openSync, readSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const require = createRequire(process.env.BENCH_MODULES);
const { Queue, Worker } = require("bullmq");
const TEXT = "some text";
const BATCH = 500;
const WARM = 100; // as in produce.py
const setting = JSON.parse(process.env.BENCH_SETTING || "{}");
const url = new URL(process.env.BENCH_URL);
const connection =
  url.protocol === "unix:"
    ? { path: url.pathname, maxRetriesPerRequest: null }
    : { host: url.hostname, port: Number(url.port), maxRetriesPerRequest: null };
const OPTIONS = { removeOnComplete: true };
const nowNs = () => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e6));

function work() {
  const file = openSync(process.env.BENCH_LEDGER, "r+");
  const capacity = Math.floor(fstatSync(file).size / 21);
  let ran = []; // number, start and end of each run
  let before = 0;
  const write = (value, offset) => writeSync(file, value, 0, value.byteLength, offset);
  setInterval(() => {
    if (ran.length && ran.length === before) {
      const pid = new Uint32Array([process.pid]);
      const runs = new Uint8Array(1);
      for (const [number, start, end] of ran) {
        write(new BigInt64Array([start]), 8 * number);
        write(new BigInt64Array([end]), 8 * (capacity + number));
        write(pid, 16 * capacity + 4 * number);
        readSync(file, runs, 0, 1, 20 * capacity + number);
        if (runs[0] < 255) runs[0] += 1;
        write(runs, 20 * capacity + number); // last: by these it is seen that the rest is there
      }
      ran = [];
    }
    before = ran.length;
  }, 20);
  new Worker(
    "bench",
    async (job) => {
      const { number } = job.data;
      const start = nowNs();
      if (job.name === "io") await sleep(10);
      ran.push([number, start, nowNs()]);
    },
    { connection, concurrency: setting.concurrency },
  );
}

async function produce(order) {
  const queue = new Queue("bench", { connection });
  const made = {};
  let number = order.first;
  const add = () => {
    const job = queue.add(order.kind, { number, text: TEXT }, OPTIONS);
    number += 1;
    return job;
  };
  await queue.waitUntilReady();
  if (order.single_s) {
    await add();
    const first = number;
    const started = performance.now();
    while (performance.now() - started < order.single_s * 1e3 && number - first < order.single_most) await add();
    made.async = [number - first, (performance.now() - started) / 1e3];
  }
  if (order.bulk) {
    const warm = Math.min(WARM, Math.floor(order.bulk / 2));
    for (let left = warm; left > 0; left -= 1) await add();
    const started = performance.now();
    for (let left = order.bulk - warm; left > 0; ) {
      const jobs = Array.from({ length: Math.min(BATCH, left) }, () => ({
        name: order.kind,
        data: { number: number++, text: TEXT },
        opts: OPTIONS,
      }));
      await queue.addBulk(jobs);
      left -= jobs.length;
    }
    made.bulk = [order.bulk - warm, (performance.now() - started) / 1e3];
  }
  if (order.per_s) {
    made.sent = [];
    const started = performance.now();
    for (let turn = 0; turn < order.per_s * order.seconds; turn += 1) {
      const wait = (turn * 1e3) / order.per_s - (performance.now() - started);
      if (wait > 0) await sleep(wait);
      made.sent.push(Number(nowNs()));
      await add();
    }
  }
  made.next = number;
  await queue.close();
  console.log(JSON.stringify(made));
}

if (process.argv[2] === "worker") work();
else await produce(JSON.parse(process.argv[3]));
