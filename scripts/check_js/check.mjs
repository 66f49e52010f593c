// Asks bundles in transformers.js, offline, and compares its answers with the Router's. Started by scripts/check_js.py.
//
// node check.mjs CASES.json
//
// A case is one graph of one bundle, and what the Router answers with it:
// {"folder", "name", "dtype", "tolerance", "max_length", "queries": [{"text", "input_ids", "scores": {label: probability}}]}
//
// One difference is known and let pass: of a query that is longer than max_length, transformers.js cuts the closing special
// token off as well, so that its ids may differ in the last place.

import { readFileSync } from "node:fs";
import path from "node:path";
import { env, pipeline } from "@huggingface/transformers";

const refuse = (url) => {
  throw new Error(`the check is offline, but something asked for ${url}`);
};
globalThis.fetch = refuse;
env.fetch = refuse;
env.allowRemoteModels = false;

const best = (scores) => Object.keys(scores).reduce((first, second) => (scores[second] > scores[first] ? second : first));

async function check({ folder, dtype, tolerance, max_length, queries }) {
  env.localModelPath = path.dirname(folder);
  const name = path.basename(folder);
  const classify = await pipeline("text-classification", name, { dtype }); // as docs/bundle.md shows it
  const tokenizer = classify.tokenizer;
  const wrong = [];
  let furthest = 0;
  let cut = 0;
  for (const { text, input_ids, scores } of queries) {
    const ids = Array.from((await tokenizer(text, { truncation: true })).input_ids.data, Number);
    if (ids.join() !== input_ids.join()) {
      if (ids.length === max_length && ids.slice(0, -1).join() === input_ids.slice(0, -1).join()) cut += 1;
      else wrong.push(`${JSON.stringify(text)}: ids ${ids} instead of ${input_ids}`);
      continue;
    }
    const found = Object.fromEntries((await classify(text, { top_k: null })).map(({ label, score }) => [label, score]));
    if (Object.keys(found).sort().join() !== Object.keys(scores).sort().join()) {
      wrong.push(`${JSON.stringify(text)}: labels ${Object.keys(found)}`);
      continue;
    }
    const distance = Math.max(...Object.keys(scores).map((label) => Math.abs(found[label] - scores[label])));
    furthest = Math.max(furthest, distance);
    const behind = scores[best(scores)] - scores[best(found)]; // 0, or how near a tie it was
    if (!(behind <= tolerance) || !(distance <= tolerance)) {
      wrong.push(`${JSON.stringify(text)}: ${best(found)} ${found[best(found)]} instead of ${best(scores)} ${scores[best(scores)]}`);
    }
  }
  await classify.dispose();
  return { wrong, furthest, cut, compared: queries.length - cut };
}

const cases = JSON.parse(readFileSync(process.argv[2], "utf8"));
let failed = cases.length === 0;
for (const each of cases) {
  const { wrong, furthest, cut, compared } = await check(each);
  const verdict = wrong.length === 0 && compared > 0 ? "same answers" : `${wrong.length} WRONG`;
  const note = cut > 0 ? ` (${cut} too long, cut otherwise)` : "";
  console.log(`${each.name} ${each.dtype}: ${compared} queries, ${verdict}, probabilities within ${furthest.toExponential(1)}${note}`);
  for (const line of wrong.slice(0, 5)) console.log(`  ${line}`);
  failed ||= verdict !== "same answers";
}
process.exitCode = failed ? 1 : 0;
