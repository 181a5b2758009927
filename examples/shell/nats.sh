#!/usr/bin/env bash
# A walk through the executor with the nats command line, for people who look and for scripts that need nothing else.
# Start `executor dev --tools configs/tools`, set NATS_URL as it says, then run this file or copy from it.
# Where each agent has an inbox of its own, say so: nats --inbox-prefix=_INBOX.planner, or inbox_prefix in a context. What reads
# streams and services below is for operators there.
set -euo pipefail

# What can be asked for, and who is there to run it? Then one tool alone, with its parameters.
nats req tools.discover '' --raw
nats req tools.discover '{"tool": "text_analyzer"}' --raw

# Ask: one request, one answer, the result. --timeout is how long to wait for it; the run has its own timeouts.
nats req tools.run '{"tool": "text_analyzer", "args": {"text": "to be or not to be"}}' --raw --timeout=60s

# Without --raw the headers are shown, too: a client goes by Tools-Type alone. A request that cannot be run is told so.
nats req tools.run '{"tool": "no_such_tool"}'

# Stream: every event as it comes, the result, an empty message. nats leaves when nothing came for the time given; an
# executor says something every 5 s.
nats req tools.stream '{"tool": "system_info"}' --replies=1000 --reply-timeout=6s

# Queue: publish, and somebody will run it. The answer only says that the request is stored. The id is yours to choose;
# who knows it may follow and stop the run. (executor dev takes contracts with the request; a fleet may not.)
id=$(cat /proc/sys/kernel/random/uuid)
contract='{"name": "count", "engine": "local", "engine_spec": {"command": ["sh", "-c", "for i in 1 2 3; do echo line $i; sleep 1; done"]}}'
nats req tools.exec.local "{\"id\": \"$id\", \"contract\": $contract}" --raw

# Its output while it appears, as the tool printed it. In a second terminal, leave --wait away.
nats sub "tools.reply.$id.output" --raw --wait=3s

# The same run again from its start, whenever you like within a day: events, output, result.
nats req tools.follow "{\"id\": \"$id\"}" --raw --replies=1000 --reply-timeout=6s

# From chunk 2 of attempt 1 on: that is how a client goes on after it lost its connection.
nats req tools.follow "{\"id\": \"$id\", \"attempt\": 1, \"from\": 2}" --raw --replies=1000 --reply-timeout=6s

# The result alone, for a week, from the stream of results. Or ask for the same again: it is not run a second time.
nats stream get TOOLS_RESULT --last-for="tools.reply.$id.result"
nats req tools.run "{\"id\": \"$id\", \"contract\": $contract}" --raw --timeout=60s

# Cancel: publish anything to the run's subject, as a request, so that the server says that it is stored.
id=$(cat /proc/sys/kernel/random/uuid)
sleeper='{"name": "sleeper", "engine": "local", "engine_spec": {"command": ["sleep", "60"]}}'
nats req tools.exec.local.high "{\"id\": \"$id\", \"contract\": $sleeper}" --raw
nats req "tools.cancel.$id" 'not needed any more' --raw
nats req tools.run "{\"id\": \"$id\", \"contract\": $sleeper}" --raw --timeout=60s

# Look: what waits in the queues (Unprocessed), what runs (Outstanding Acks), what was given up on (TOOLS_DEAD).
nats stream ls
nats stream info TOOLS_EXEC
nats consumer info TOOLS_EXEC local
nats stream info TOOLS_DEAD
nats kv ls TOOLS_EXECUTORS

# The front door is a NATS service: which instances answer, and how often they did.
nats micro ls
nats micro info executor
nats micro stats executor
