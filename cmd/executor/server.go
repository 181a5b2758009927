package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/configs"
	"github.com/praxis-sdk/executor/internal/bus"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// serverFlags say where the executors are.
type serverFlags struct {
	server, creds, context, data, prefix, inbox string
}

func (f *serverFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.server, "server", "", "`URL` of the NATS server (default $NATS_URL, else the executor dev of this machine)")
	c.Flags().StringVar(&f.creds, "creds", "", "`FILE` with NATS user credentials (default $NATS_CREDS)")
	c.Flags().StringVar(&f.context, "context", "", "`NAME` of a context of the nats CLI: server and credentials (default $NATS_CONTEXT)")
	c.Flags().StringVar(&f.data, "data", "", "data `DIR` of the executor dev to use")
	c.Flags().StringVar(&f.inbox, "inbox-prefix", "", "subject `PREFIX` of answers to us, where our user may read no other (default $NATS_INBOX_PREFIX, else that of the context, else _INBOX)")
	c.Flags().StringVar(&f.prefix, "prefix", contracts.DefaultPrefix, "subject `PREFIX` of the executors")
}

// place is where the server is found: --server, --context or --data; then $NATS_URL; then $NATS_CONTEXT; then the executor dev
// that runs here; then NATS's usual address. here says that nobody named a place.
func (f *serverFlags) place(config *bus.Config) (here bool, err error) {
	given := 0
	for _, flag := range []string{f.server, f.context, f.data} {
		if flag != "" {
			given++
		}
	}
	if given > 1 {
		return false, usage("--server, --context and --data each say where the server is; give one")
	}
	if f.context != "" && f.creds != "" {
		return false, usage("--context has credentials of its own; leave --creds out")
	}
	if f.context == "" {
		config.Creds = cmp.Or(f.creds, os.Getenv("NATS_CREDS"))
	}
	if f.prefix != "" {
		config.SubjectPrefix = f.prefix
	}
	if err := f.setInbox(config); err != nil {
		return false, err
	}
	url, context := os.Getenv("NATS_URL"), os.Getenv("NATS_CONTEXT")
	switch {
	case f.server != "":
		config.URLs = strings.Split(f.server, ",")
		return false, nil
	case f.context != "":
		config.Context = f.context
		return false, nil
	case f.data == "" && url != "":
		config.URLs = strings.Split(url, ",")
		return false, nil
	case f.data == "" && context != "":
		config.Context = context
		return false, nil
	}
	text, err := os.ReadFile(filepath.Join(cmp.Or(f.data, configs.DefaultDataDir(false)), devURL))
	if err == nil {
		config.URLs = []string{strings.TrimSpace(string(text))}
		return true, nil
	}
	if f.data != "" {
		return true, fmt.Errorf("no executor dev runs with the data directory %s; start it: executor dev --data %s", f.data, f.data)
	}
	config.ConnectWait = contracts.Seconds(0.1) // nothing says that a server is here
	return true, nil
}

// setInbox has answers sent where flag or environment say.
func (f *serverFlags) setInbox(config *bus.Config) error {
	if config.Inbox = cmp.Or(f.inbox, os.Getenv("NATS_INBOX_PREFIX")); config.Inbox != "" && !inboxPrefix.MatchString(config.Inbox) {
		return usage("--inbox-prefix %s: a prefix is a subject without wildcards, as _INBOX.planner", config.Inbox)
	}
	return nil
}

// inboxPrefix is a subject without wildcards: whole tokens, because the rights of users are.
var inboxPrefix = regexp.MustCompile(`^[A-Za-z0-9_$-]+(\.[A-Za-z0-9_$-]+)*$`)

// connect finds the server and connects to it. The connection is the caller's to close.
func (f *serverFlags) connect(ctx context.Context) (*client.Client, *nats.Conn, error) {
	config := bus.DefaultConfig()
	config.ConnectWait = contracts.Seconds(2) // a server that is just being restarted is waited for
	here, err := f.place(&config)
	if err != nil {
		return nil, nil, err
	}
	nc, err := bus.DialClient(ctx, config, "executor cli")
	if err != nil {
		if here && ctx.Err() == nil {
			return nil, nil, fmt.Errorf("no executor runs on this machine (%w); start one with: executor dev", err)
		}
		return nil, nil, err
	}
	c, err := client.New(nc, client.Prefix(f.prefix))
	if err != nil {
		nc.Close()
		return nil, nil, usage("--prefix: %s", err)
	}
	return c, nc, nil
}

// explain says what to do where no executor answers, or no answer comes: a server says nothing to a question whose answer may
// not be read.
func explain(err error) error {
	switch {
	case errors.Is(err, client.ErrNoExecutor):
		return errors.New("the NATS server is there, but no executor on it; start one with: executor serve")
	case errors.Is(err, nats.ErrPermissionViolation): // it says what is missing
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("%w; may this user read its answers? give the inbox prefix of this user: --inbox-prefix", err)
	}
	return err
}
