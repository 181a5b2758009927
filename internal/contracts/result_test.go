package contracts

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// How a run ends that an error kept from running. Clients act on it: unavailable is worth another try, rejected is not.
func TestErrorStatus(t *testing.T) {
	want := map[Code]Status{
		InvalidRequest: Rejected, IDConflict: Rejected, UnknownTool: Rejected, InvalidArgs: Rejected, PolicyDenied: Rejected, SpawnFailed: Rejected,
		Unsupported: Unavailable, QueueFull: Unavailable, EngineUnavailable: Unavailable, ImageUnavailable: Unavailable, Internal: Unavailable,
		Timeout: TimedOut, CancelledCode: Cancelled, ExpiredCode: Expired, ExecutorLost: Lost,
	}
	for _, code := range Codes {
		status, ok := want[code]
		if !ok && !slices.Contains([]Code{ExitNonzero, Signalled, OOMKilled, OutputLimit}, code) { // those are of tools that ran
			t.Errorf("no expectation for %s", code)
		}
		got := Errorf(code, "x").Status()
		if ok && got != status {
			t.Errorf("%s: %s, want %s", code, got, status)
		}
		if !slices.Contains(Statuses, got) {
			t.Errorf("%s: unknown status %s", code, got)
		}
	}
}

func TestAsError(t *testing.T) {
	own := Errorf(QueueFull, "%d %s", 5, "waiting")
	if own.Error() != "queue_full: 5 waiting" {
		t.Errorf("%s", own)
	}
	if got := AsError(fmt.Errorf("while: %w", own)); got != own {
		t.Errorf("wrapped: %v", got)
	}
	if got := AsError(errors.New("disk")); got.Code != Internal || got.Message != "disk" {
		t.Errorf("another: %v", got)
	}
}

// The sets are closed, and nothing is in them twice.
func TestSetsHaveNoDoubles(t *testing.T) {
	for name, list := range map[string][]string{"codes": texts(Codes), "statuses": texts(Statuses)} {
		slices.Sort(list)
		if n := len(slices.Compact(slices.Clone(list))); n != len(list) {
			t.Errorf("%s: %v", name, list)
		}
	}
	if len(Codes) != 19 || len(Statuses) != 9 {
		t.Errorf("%d codes and %d statuses; the design has 19 and 9", len(Codes), len(Statuses))
	}
}

func texts[T ~string](list []T) []string {
	all := make([]string, len(list))
	for i, one := range list {
		all[i] = string(one)
	}
	return all
}

func TestHeaderGet(t *testing.T) {
	h := Header{"Tools-Type": {"result", "x"}, "Empty": {}}
	if h.Get("Tools-Type") != "result" || h.Get("tools-type") != "" || h.Get("Empty") != "" || Header(nil).Get("a") != "" {
		t.Errorf("%q %q", h.Get("Tools-Type"), h.Get("tools-type"))
	}
}
