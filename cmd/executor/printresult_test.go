package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/client"
	"github.com/praxis-sdk/executor/internal/contracts"
)

// A result of any status can be shown, with what it has and without.
func TestPrintResult(t *testing.T) {
	for _, status := range contracts.Statuses {
		for _, attempt := range []int{0, 1} {
			var out bytes.Buffer
			p := &program{stdout: &out, stderr: &out}
			r := &client.Result{Type: contracts.TypeResult, ID: "a", Status: status, Engine: "local", Attempt: attempt}
			if err := p.printResult(r); err != nil || !strings.Contains(out.String(), string(status)) {
				t.Errorf("%s: %v\n%s", status, err, out.String())
			}
		}
	}
}
