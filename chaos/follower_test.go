//go:build linux

package chaos_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/client"
)

// testSlowFollower has subscribers that read too slowly, or not at all, follow runs that print much. The server cuts them
// off; the runs do not wait for them; and a follower of ours, who is slow and cut off as well, gets every byte once.
func testSlowFollower(t *testing.T) {
	f := newFleet(t, options{servers: 1})
	// Two who do not read: one that hears all output, and one to whom copies are sent.
	deaf := newLink(t, f.servers)
	nc, err := nats.Connect(deaf.urls[0], nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if _, err := nc.Subscribe("tools.reply.>", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	deaf.stall(true)
	f.fault("deaf subscriber")

	slow := newLink(t, f.servers)
	l := f.ask(max(4, asked.requests/20), 2*time.Second, "big flood", "long print")
	var followers sync.WaitGroup
	t.Cleanup(followers.Wait)
	requests := l.stored()
	ctx, cancel := context.WithTimeout(context.Background(), settleWait)
	defer cancel()
	for _, r := range requests[:4] {
		followers.Go(func() {
			if err := f.followSlowly(ctx, slow, r); err != nil {
				t.Errorf("following %s: %v", r.id, err)
			}
		})
	}
	stop := make(chan struct{})
	var faults sync.WaitGroup
	faults.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(700 * time.Millisecond):
				f.fault("cut follower")
				slow.cut()
			}
		}
	})
	followers.Wait()
	close(stop)
	faults.Wait()
	f.close(requests)
}

// followSlowly follows a run by the client, with a pause now and then, and compares what comes.
func (f *fleet) followSlowly(ctx context.Context, through *link, r *request) error {
	nc, err := nats.Connect(strings.Join(through.urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return err
	}
	defer nc.Close()
	c, err := client.New(nc)
	if err != nil {
		return err
	}
	run := c.Follow(r.id)
	defer run.Close()
	printed := map[string][]byte{}
	for event, err := range run.Events(ctx) {
		if err != nil {
			return err
		}
		switch {
		case event.Type == client.TypeStarted && event.Attempt > 1:
			printed = map[string][]byte{}
		case event.Type == client.TypeOutput:
			printed[event.Stream] = append(printed[event.Stream], event.Data...)
			if event.Seq%20 == 0 {
				time.Sleep(30 * time.Millisecond) // it is slow
			}
		case event.Result != nil && event.Incomplete:
			return fmt.Errorf("the client says that something is missing")
		}
	}
	stdout, stderr := r.printed()
	if !bytes.Equal(printed["stdout"], stdout) || !bytes.Equal(printed["stderr"], stderr) {
		return fmt.Errorf("%d and %d bytes came, not the %d and %d that were printed", len(printed["stdout"]), len(printed["stderr"]), len(stdout), len(stderr))
	}
	return nil
}
