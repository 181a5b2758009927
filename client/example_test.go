package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/praxis-sdk/executor/client"
)

// exampleFleet gives examples executors to ask: they know the tool play, which prints what its arguments say. In a
// program of yours it is
//
//	nc, err := nats.Connect(url)
//	...
//	c, err := client.New(nc)
func exampleFleet() (f *fleet, ctx context.Context, stop func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	if f, err = startFleet(dir, 2); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	return f, ctx, func() {
		cancel()
		f.stop()
		os.RemoveAll(dir)
	}
}

// Run a tool and follow it while it prints.
func ExampleClient_Start() {
	f, ctx, stop := exampleFleet()
	defer stop()
	c := f.client

	run, err := c.Start(ctx, client.Request{Tool: "play", Args: map[string]any{"first": "out:hello\n", "second": "err:careful\n", "third": "exit:3"}})
	if err != nil {
		log.Fatal(err)
	}
	defer run.Close()
	for event, err := range run.Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		switch event.Type {
		case client.TypeStarted:
			fmt.Println("attempt", event.Attempt)
		case client.TypeOutput:
			fmt.Printf("%s: %s", event.Stream, event.Data)
		case client.TypeResult:
			fmt.Println(event.Result.Status, *event.Result.ExitCode)
		}
	}
	// Output:
	// attempt 1
	// stdout: hello
	// stderr: careful
	// failed 3
}

// Hand in a request, and ask for its result later, by its id alone.
func ExampleClient_Submit() {
	f, ctx, stop := exampleFleet()
	defer stop()
	c := f.client

	accepted, err := c.Submit(ctx, client.Request{ID: "report-17", Tool: "play", Args: map[string]any{"first": "out:done"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(accepted.ID, accepted.Reply)

	result, err := c.Follow("report-17").Wait(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Status, result.Stdout)
	// Output:
	// report-17 tools.reply.report-17
	// succeeded done
}

// A request that is refused says why.
func ExampleClient_Submit_refused() {
	f, ctx, stop := exampleFleet()
	defer stop()

	_, err := f.client.Submit(ctx, client.Request{Tool: "plya"})
	fmt.Println(err)
	// Output:
	// unknown_tool: there is no tool "plya"; did you mean "play"?
}

// Ask how far a run is, without waiting for it.
func ExampleClient_State() {
	f, ctx, stop := exampleFleet()
	defer stop()
	c := f.client

	run, err := c.Start(ctx, client.Request{ID: "long", Tool: "play", Args: map[string]any{"first": "out:working", "second": "await:go"}})
	if err != nil {
		log.Fatal(err)
	}
	defer run.Close()
	for event, err := range run.Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if event.Type != client.TypeStarted {
			continue
		}
		state, err := c.State(ctx, "long")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(state.Last.Type, state.Result == nil)
		f.engine.Release("go")
	}
	state, err := c.State(ctx, "long")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(state.Result.Status)
	// Output:
	// started true
	// succeeded
}

// Stop a run. Its result tells how it ended, and what it had printed.
func ExampleClient_Cancel() {
	f, ctx, stop := exampleFleet()
	defer stop()
	c := f.client

	run, err := c.Start(ctx, client.Request{Tool: "play", Args: map[string]any{"first": "out:so far", "second": "block"}})
	if err != nil {
		log.Fatal(err)
	}
	defer run.Close()
	for event, err := range run.Events(ctx) {
		switch {
		case err != nil:
			log.Fatal(err)
		case event.Type == client.TypeOutput:
			if err := c.Cancel(ctx, run.ID); err != nil {
				log.Fatal(err)
			}
		case event.Type == client.TypeResult:
			fmt.Printf("%s, after %q\n", event.Result.Status, event.Result.Stdout)
		}
	}
	// Output:
	// cancelled, after "so far"
}

// List the tools that the executors know.
func ExampleClient_Discover() {
	f, ctx, stop := exampleFleet()
	defer stop()

	found, err := f.client.Discover(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	for _, tool := range found.Tools {
		fmt.Println(tool.Name, tool.Version, tool.Engine, tool.Description)
	}
	// Output:
	// play 1.0.0 local Plays a script.
}

// Keep how far a run was read, and go on from there, as after a restart of the reader.
func ExampleFrom() {
	f, ctx, stop := exampleFleet()
	defer stop()
	c := f.client

	run, err := c.Start(ctx, client.Request{ID: "story", Tool: "play", Args: map[string]any{"first": "out:once", "second": "await:go", "third": "out:upon a time"}})
	if err != nil {
		log.Fatal(err)
	}
	for event, err := range run.Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if event.Type == client.TypeOutput {
			fmt.Printf("%s\n", event.Data)
			break // the reader stops here
		}
	}
	kept, err := json.Marshal(run.Position())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", kept)
	f.engine.Release("go")

	var position client.Position
	if err := json.Unmarshal(kept, &position); err != nil {
		log.Fatal(err)
	}
	for event, err := range c.Follow("story", client.From(position)).Events(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if event.Type == client.TypeOutput {
			fmt.Printf("%s\n", event.Data)
		}
	}
	// Output:
	// once
	// {"attempt":1,"next":2,"bytes":4}
	// upon a time
}
