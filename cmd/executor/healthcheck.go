package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// healthcheckWait is how long an instance may take to say how it is.
const healthcheckWait = 4 * time.Second

// healthcheckCommand is for the health checks of containers: images need neither curl nor wget for them.
func (p *program) healthcheckCommand() *cobra.Command {
	var url string
	c := &cobra.Command{
		Use: "healthcheck", Short: "Ask the instance on this machine whether it takes requests", Args: none,
		Long: `healthcheck asks an instance that runs here, over HTTP, and exits with 0 if it takes requests, else with 1 and the
reason. It is what the health check of a container calls.`,
		Example: "  executor healthcheck\n  executor healthcheck --url http://127.0.0.1:8088/healthz",
	}
	c.Flags().StringVar(&url, "url", "http://127.0.0.1:8088/readyz", "`URL` to ask: what http.listen says, with /readyz, or /healthz for whether it lives")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(c.Context(), healthcheckWait)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return usage("--url: %s", err)
		}
		// Without a proxy, whatever the environment says: it is this machine that is asked.
		transport := &http.Transport{DisableKeepAlives: true}
		reply, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			return err
		}
		defer reply.Body.Close()
		var body struct{ Status, Reason string }
		if err := json.NewDecoder(reply.Body).Decode(&body); err != nil || body.Status == "" {
			return fmt.Errorf("%s: what answers (%s) is no executor", url, reply.Status)
		}
		if reply.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", body.Status, body.Reason)
		}
		_, err = fmt.Fprintln(p.stdout, body.Status)
		return err
	}
	return c
}
