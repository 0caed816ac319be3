// Runs the Worker in workerd: node edge.mjs '{"worker": …, "port": …, "persist": …, "bindings": {…}}'.
// It prints a line of JSON with its addresses, and ends with its standard input. The control address shows the bucket:
// GET /objects lists it, GET and PUT /object?key=KEY read and write an object, PUT /key?name=NAME writes a key.
import { createServer } from "node:http";
import { Miniflare } from "miniflare";

const options = process.argv[2] === undefined ? undefined : JSON.parse(process.argv[2]);

/** start runs the Worker. */
export async function start({ worker, port = 0, persist, bindings }) {
  const mf = new Miniflare({
    host: "127.0.0.1",
    port,
    modules: true,
    scriptPath: worker,
    compatibilityDate: "2026-04-01",
    compatibilityFlags: ["nodejs_compat"],
    cf: false,
    bindings,
    durableObjects: { SHARD: { className: "Shard", useSQLite: true } },
    durableObjectsPersist: persist + "/do",
    r2Buckets: ["BUCKET"],
    r2Persist: persist + "/r2",
    kvNamespaces: ["KEYS"],
    kvPersist: persist + "/kv",
    handleRuntimeStdio: (out, err) => {
      out.pipe(process.stderr);
      err.pipe(process.stderr);
    },
  });
  return { mf, url: (await mf.ready).origin };
}

/** all lists the objects of a bucket. */
export async function all(bucket) {
  const objects = [];
  for (let cursor; ;) {
    const page = await bucket.list({ cursor, include: ["customMetadata"] });
    for (const { key, size, etag, customMetadata } of page.objects) objects.push({ key, size, etag, customMetadata });
    if (!page.truncated) return objects;
    cursor = page.cursor;
  }
}

if (options !== undefined) {
  const { mf, url } = await start(options);
  const control = createServer(async (req, res) => {
    try {
      const to = new URL(req.url, "http://control");
      if (req.method === "PUT") {
        let body = "";
        for await (const part of req) body += part;
        if (to.pathname === "/key") await (await mf.getKVNamespace("KEYS")).put(to.searchParams.get("name"), body);
        else await (await mf.getR2Bucket("BUCKET")).put(to.searchParams.get("key"), body);
        res.end();
        return;
      }
      const bucket = await mf.getR2Bucket("BUCKET");
      if (to.pathname === "/objects") {
        res.end(JSON.stringify(await all(bucket)));
        return;
      }
      const object = await bucket.get(to.searchParams.get("key"));
      res.writeHead(object === null ? 404 : 200);
      res.end(object === null ? "" : Buffer.from(await object.arrayBuffer()));
    } catch (e) {
      res.writeHead(500);
      res.end(String(e));
    }
  });
  await new Promise((resolve) => control.listen(0, "127.0.0.1", resolve));
  console.log(JSON.stringify({ url, control: `http://127.0.0.1:${control.address().port}` }));
  process.stdin.resume();
  process.stdin.on("end", async () => {
    await mf.dispose();
    process.exit(0);
  });
}
