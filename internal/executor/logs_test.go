package executor

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Every line about a run has its id; none has a value that the asker gave, nor what the tool printed.
func TestLogs(t *testing.T) {
	const secret = "s3cret"
	r := newRig(t)
	for _, test := range []struct {
		request string
		status  contracts.Status
	}{
		{`{"id":"log-1","tool":"script","args":{"a":"out:s3cret"},"context":{"key":"s3cret"},"stdin":"s3cret"}`, contracts.Succeeded},
		{`{"id":"log-1","tool":"script","args":{"a":"out:s3cret"},"context":{"key":"s3cret"},"stdin":"s3cret"}`, contracts.Succeeded},
		{`{"id":"log-2","tool":"script","args":{"a":"err:s3cret","b":"exit:3"}}`, contracts.Failed},
		{`{"id":"log-3","tool":"typed","args":{"count":1,"word":"s3cret"}}`, contracts.Rejected},
		{`{"id":"log-4","tool":"typed","args":{"count":"s3cret"}}`, contracts.Rejected},
		{`{"id":"log-5","tool":"s3cret"}`, contracts.Rejected},
		{`{"id":"log-6","tool":"script","args":{"a":"fail-before:spawn_failed:no program","b":"s3cret"}}`, contracts.Rejected},
		{`{"id":"log-7","tool":"script","s3cret":1}`, contracts.Rejected},
	} {
		if result := r.ask(test.request).result(); test.status != "" && result.Status != test.status {
			t.Fatalf("%s: %s %v", test.request, result.Status, result.Error)
		}
	}
	r.stop(nil)
	ids := map[string]bool{}
	for line := range strings.Lines(r.logs.text()) {
		var entry struct {
			ID      string `json:"id"`
			Tool    string `json:"tool"`
			Stream  string `json:"stream"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Message == "" {
			t.Errorf("not a line of JSON with a message: %s", line)
		}
		if entry.ID == "" && entry.Stream == "" { // what is not about a run: streams that were made
			t.Errorf("no id: %s", line)
		}
		ids[entry.ID] = true
		if strings.Contains(strings.ReplaceAll(line, `"tool":"s3cret"`, ""), secret) {
			t.Errorf("a value of the asker's: %s", line)
		}
	}
	for _, id := range []string{"log-1", "log-2", "log-3", "log-6"} {
		if !ids[id] {
			t.Errorf("nothing is said about %s", id)
		}
	}
}
