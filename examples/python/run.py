"""Runs a tool by one request and shows its result.

python3 run.py text_analyzer '{"text": "to be or not to be"}'
"""
import asyncio
import base64
import json
import os
import sys
import uuid

import nats


async def main(tool, args="{}"):
    nc = await nats.connect(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
                            inbox_prefix=os.environ.get("NATS_INBOX_PREFIX", "_INBOX"))  # the one that this user may read

    # The run is stored before anything happens. Should the answer not come in time, or the connection be lost, then the
    # same request with the same id asks for the result of the same run; it does not run the tool again.
    request = {"id": uuid.uuid4().hex, "tool": tool, "args": json.loads(args)}
    answer = await nc.request("tools.run", json.dumps(request).encode(), timeout=60)
    result = json.loads(answer.data)

    # Output is text, or base64 where it is not UTF-8. Of very long output this is the first and the last part (truncated).
    for name, file in ("stdout", sys.stdout.buffer), ("stderr", sys.stderr.buffer):
        file.write(base64.b64decode(result.get(name + "_base64", "")) or result.get(name, "").encode())
        file.flush()
    if "error" in result:
        print(f"{result['status']}: {result['error']['message']}", file=sys.stderr)
    await nc.close()
    return result.get("exit_code", 1)  # absent where the tool did not exit by itself


sys.exit(asyncio.run(main(*sys.argv[1:])))
