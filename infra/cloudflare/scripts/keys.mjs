// Makes entries of the KV namespace KEYS of a projects file, for `wrangler kv bulk put`:
//
//   yq -o=json projects.yaml | node scripts/keys.mjs > keys.json
//   wrangler kv bulk put keys.json --binding KEYS --remote
//
// The name of an entry is the key's hash. Settings of the project are named, so that the Worker can refuse those that
// it does not apply.
import { readFileSync } from "node:fs";

const { projects } = JSON.parse(readFileSync(0, "utf8"));
const entries = Object.entries(projects).flatMap(([project, p]) => {
  const settings = Object.keys(p ?? {}).filter((name) => name !== "keys");
  return (p?.keys ?? []).map(({ sha256, scopes, min_durability, large, expires }) => ({
    key: sha256.toLowerCase(),
    value: JSON.stringify({ project, scopes, min_durability, large, expires, settings }),
  }));
});
console.log(JSON.stringify(entries, null, 1));
