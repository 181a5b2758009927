// Runs a tool by one request and shows its result:
//
//   node run.mjs text_analyzer '{"text": "to be or not to be"}'
import { randomUUID } from "node:crypto";
import { connect } from "@nats-io/transport-node";

const [tool, args = "{}"] = process.argv.slice(2);
const url = new URL(process.env.NATS_URL ?? "nats://127.0.0.1:4222"); // nats.js takes no token from a URL
const auth = url.password ? { user: url.username, pass: url.password } : { token: url.username || undefined };
const nc = await connect({ servers: url.host, inboxPrefix: process.env.NATS_INBOX_PREFIX, ...auth });

// The run is stored before anything happens. Should the answer not come in time, or the connection be lost, then the same
// request with the same id asks for the result of the same run; it does not run the tool again.
const request = { id: randomUUID(), tool, args: JSON.parse(args) };
const answer = await nc.request("tools.run", JSON.stringify(request), { timeout: 60_000 });
const result = answer.json();

// Output is text, or base64 where it is not UTF-8. Of very long output this is the first and the last part (truncated).
for (const name of ["stdout", "stderr"]) {
  const base64 = result[`${name}_base64`];
  process[name].write(base64 ? Buffer.from(base64, "base64") : result[name] ?? "");
}
if (result.error) console.error(`${result.status}: ${result.error.message}`);
process.exitCode = result.exit_code ?? 1; // absent where the tool did not exit by itself
await nc.close();
