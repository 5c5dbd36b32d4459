// What a test has this client do; prints what it was told as JSON. Arguments: address, token.

import { Client, LimitExceeded, WeirError } from "./weir-usage.js";

declare const process: { argv: string[] };

const [address = "", token = ""] = process.argv.slice(2);
const client = new Client(address, token);
const told: Record<string, unknown> = {
  first: await client.report({ tenant: "acme", tokens: 70, key: "job-1" }),
  again: await client.report({ tenant: "acme", tokens: 70, key: "job-1" }),
  unnamed: await client.report({ tenant: "acme", tokens: 1, requests: 1, model: "gpt-4o" }),
  taken: await client.take({ tenant: "acme", tokens: 19 }),
};
try {
  await client.take({ tenant: "acme", tokens: 20, key: "job-2" });
} catch (refused) {
  if (!(refused instanceof LimitExceeded)) throw refused;
  told.refused = { violated: refused.violated, waits: refused.retryAfterMs !== undefined, key: refused.key };
}
try {
  await client.report({ tenant: "acme", tokens: 71, key: "job-1" });
} catch (conflict) {
  if (!(conflict instanceof WeirError)) throw conflict;
  told.conflict = conflict.status;
}
const patient = new Client(address, token, { maxWaitMs: 30_000 });
const waited: number[] = [];
for (let number = 0; number < 2; number += 1) {
  waited.push((await patient.take({ tenant: "slow", tokens: 1 })).tokens);
}
told.waited = waited;
console.log(JSON.stringify(told));
