// A smoke test of the Worker in workerd. The tests in Go compare it with the receiver.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { all, start } from "./edge.mjs";

const key = "ps_smoke";

test("accepted events become an object, rejected ones a failure record", async () => {
  const persist = await mkdtemp(tmpdir() + "/penstock-edge-");
  const sha256 = createHash("sha256").update(key).digest("hex");
  const projects = { projects: { game: { keys: [{ name: "smoke", sha256 }] } } };
  const bindings = { PROJECTS: JSON.stringify(projects), ROLL_AGE: "1", SHARDS: "1" };
  const { mf, url } = await start({ worker: "dist/worker.js", persist, bindings });
  try {
    const post = (body, headers) =>
      fetch(url + "/v1/events", { method: "POST", body, headers: { Authorization: "Bearer " + key, ...headers } });
    const answer = await post(gzipSync('{"name":"a"}\n{"level":4}\n{"name":"b"}'), { "Content-Encoding": "gzip" });
    assert.equal(answer.status, 202);
    const { accepted, rejected, errors } = await answer.json();
    assert.deepEqual([accepted, rejected, errors[0].index, errors[0].code], [2, 1, 1, "missing_name"]);
    assert.equal((await post('{"name":"a"}', { Authorization: "Bearer other" })).status, 401);

    const bucket = await mf.getR2Bucket("BUCKET");
    let objects = [];
    for (let i = 0; i < 100 && objects.length < 2; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      objects = await all(bucket);
    }
    const rows = Object.fromEntries(objects.map((o) => [o.key.split("/")[0], o.customMetadata["penstock-rows"]]));
    assert.deepEqual(rows, { errors: "2", events: "2" });
  } finally {
    await mf.dispose();
    await rm(persist, { recursive: true });
  }
});
