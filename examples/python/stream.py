"""Runs a tool and shows its output while it appears. A lost connection loses nothing and doubles nothing.
python3 stream.py text_analyzer '{"text": "to be or not to be"}'"""
import asyncio, contextlib, json, logging, os, sys, uuid
import nats
inbox_prefix = os.environ.get("NATS_INBOX_PREFIX", "_INBOX")  # below which this user may read

# Returns the result. Every chunk goes to output() once and in order; started() is told that what came before is void.
async def stream(url, request, output, started):
    inbox, heard, attempt, seq, size = None, False, 0, 0, 0  # how far we are
    async def reconnected():
        await inbox.put(None)
    nc = await nats.connect(url, reconnected_cb=reconnected, max_reconnect_attempts=-1, ping_interval=10, inbox_prefix=inbox_prefix)
    while True:
        inbox, early, reply, start = asyncio.Queue(), {}, nc.new_inbox(), seq + 1 if heard else 0
        sub = await nc.subscribe(reply, cb=inbox.put)
        ask = {"id": request["id"], "attempt": attempt, "from": start} if start else request
        await nc.publish("tools.follow" if start else "tools.stream", json.dumps(ask).encode(), reply=reply)
        with contextlib.suppress(asyncio.TimeoutError):
            while m := await asyncio.wait_for(inbox.get(), 12):  # executors say something every 5 s
                header = m.headers or {}
                kind, of, n = header.get("Tools-Type"), int(header.get("Tools-Attempt", 0)), int(header.get("Tools-Seq", 0))
                if not kind and not heard:
                    raise RuntimeError("no executor is there")
                if not kind:
                    break  # none is there now
                heard = True  # so the request is stored
                if kind == "result":
                    result = json.loads(m.data)
                    total = result["stdout_bytes"] + result["stderr_bytes"] - result.get("dropped_bytes", 0)
                    if result.get("attempt") and (result["attempt"] != attempt or size < total) and start != seq + 1:
                        break  # ask for the rest, unless that is what we just did
                    await nc.close()
                    return result
                if of > attempt:
                    attempt, seq, size, early = of, 0, 0, {}
                    started(attempt)
                if kind == "output" and of == attempt and n > seq:
                    early[n] = m
                while seq + 1 in early:
                    m, seq = early.pop(seq + 1), seq + 1
                    size += len(m.data)
                    output(m.headers["Tools-Stream"], m.data)
                if len(early) > 64 and start == seq + 1:
                    raise RuntimeError("part of the output is not kept any more")
                if len(early) > (64 if start else 0):
                    break  # one is missing; replayed ones may come a little out of order
        await sub.unsubscribe()
        await asyncio.sleep(0.25)

def write(name, data):
    getattr(sys, name).buffer.write(data)
    getattr(sys, name).flush()
logging.getLogger("nats").setLevel("CRITICAL")  # it need not tell that connections come and go
request = {"id": uuid.uuid4().hex, "tool": sys.argv[1], "args": json.loads((sys.argv[2:] or ["{}"])[0])}
result = asyncio.run(stream(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"), request, write, lambda attempt:
    attempt > 1 and print(f"attempt {attempt} begins; what was printed so far is void", file=sys.stderr)))
if "error" in result:
    print(f"{result['status']}: {result['error']['message']}", file=sys.stderr)
sys.exit(result.get("exit_code", 1))  # absent where the tool did not exit by itself
