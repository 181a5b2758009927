// Runs a tool and shows its output while it appears. A lost connection loses nothing and doubles nothing.
//   node stream.mjs text_analyzer '{"text": "to be or not to be"}'
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { connect, createInbox } from "@nats-io/transport-node";

// stream hands a request in and returns its result. Every chunk of output goes to output() once and in order. started()
// is told that an attempt begins: all output before is void. There is a second one if an executor dies.
async function stream(nc, request, output, started) {
  let sub, early, heard = false, attempt = 0, seq = 0, bytes = 0; // how far we are
  (async () => {
    for await (const s of nc.status()) if (s.type === "reconnect") sub.unsubscribe(); // ends the inner loop
  })();
  for (;; await pause(250)) {
    const reply = createInbox(nc.options.inboxPrefix), from = heard ? seq + 1 : 0;
    [sub, early] = [nc.subscribe(reply), new Map()];
    if (from) nc.publish("tools.follow", JSON.stringify({ id: request.id, attempt, from }), { reply });
    else nc.publish("tools.stream", JSON.stringify(request), { reply });
    const silence = setTimeout(() => sub.unsubscribe(), 12_000); // executors say something every 5 s
    for await (const m of sub) {
      silence.refresh();
      const header = (name) => m.headers?.get(name) ?? "";
      const type = header("Tools-Type"), of = Number(header("Tools-Attempt")), n = Number(header("Tools-Seq"));
      if (!type && !heard) throw new Error("no executor is there");
      if (!type) break; // none is there now
      heard = true; // so the request is stored
      if (type === "result") {
        const result = m.json(), all = result.stdout_bytes + result.stderr_bytes - (result.dropped_bytes ?? 0);
        const missing = result.attempt && (result.attempt !== attempt || bytes < all);
        if (missing && from !== seq + 1) break; // ask for the rest, unless that is what we just did
        clearTimeout(silence);
        return result;
      }
      if (of > attempt) {
        [attempt, seq, bytes, early] = [of, 0, 0, new Map()];
        started(attempt);
      }
      if (type === "output" && of === attempt && n > seq) early.set(n, m);
      for (let next; (next = early.get(seq + 1)); bytes += next.data.length) {
        early.delete(++seq);
        await output(next.headers.get("Tools-Stream"), next.data);
      }
      if (early.size > 64 && from === seq + 1) throw new Error("part of the output is not kept any more");
      if (early.size > (from ? 64 : 0)) break; // one is missing; replayed ones may come a little out of order
    }
    clearTimeout(silence);
    sub.unsubscribe();
  }
}
const { env } = process, url = new URL(env.NATS_URL ?? "nats://127.0.0.1:4222"); // nats.js takes no token from a URL
const auth = url.password ? { user: url.username, pass: url.password } : { token: url.username || undefined };
const nc = await connect({ servers: url.host, inboxPrefix: env.NATS_INBOX_PREFIX, ...auth, maxReconnectAttempts: -1, pingInterval: 1e4 });
const request = { id: randomUUID(), tool: process.argv[2], args: JSON.parse(process.argv[3] ?? "{}") };
const result = await stream(nc, request, async (name, data) => process[name].write(data) || once(process[name], "drain"),
  (attempt) => attempt > 1 && console.error(`attempt ${attempt} begins; what was printed so far is void`));
if (result.error) console.error(`${result.status}: ${result.error.message}`);
process.exitCode = result.exit_code ?? 1; // absent where the tool did not exit by itself
await nc.close();
