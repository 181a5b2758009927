// Package client runs tools on executors: submit a request, follow its output while it appears, get its result, stop it.
//
// A client is made from a NATS connection. Nothing else is needed: executors are found by subject, and everything about
// a run can be asked for again by its id.
//
//	nc, err := nats.Connect(url)
//	...
//	c, err := client.New(nc)
//	...
//	run, err := c.Start(ctx, client.Request{Tool: "text_analyzer", Args: map[string]any{"text": "…"}})
//	...
//	defer run.Close()
//	for event, err := range run.Events(ctx) {
//		switch event.Type {
//		case client.TypeOutput:
//			os.Stdout.Write(event.Data)
//		case client.TypeResult:
//			fmt.Println(event.Result.Status)
//		}
//	}
//
// Answers come to inboxes of the connection. Where NATS gives each agent an inbox prefix of its own, which it should
// (docs/security.md), make the connection with nats.CustomInboxPrefix.
package client
