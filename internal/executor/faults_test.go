package executor

import (
	"strings"
	"testing"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// A header that no message of ours could carry is not passed on; the request is handled all the same, and once.
func TestHugeTraceparent(t *testing.T) {
	r := newRig(t)
	huge := strings.Repeat("0", 65_000)
	if result := r.ask(`{"id":"huge-1","tool":"script","args":{"a":"out:x"}}`, "traceparent", huge).result(); result.Status != contracts.Succeeded {
		t.Errorf("%s %v", result.Status, result.Error)
	}
	if result := r.ask(`{"id":"huge-2","tool":"nothing"}`, "traceparent", huge).result(); result.Status != contracts.Rejected {
		t.Errorf("%s %v", result.Status, result.Error)
	}
	r.queueEmpty()
	if letters := r.deadLetters(); len(letters) != 1 || letters[0].ID != "huge-2" {
		t.Errorf("%+v", letters)
	}
}

// queue_timeout is about the wait for the first start: a second attempt is not late.
func TestQueueTimeoutDoesNotEndASecondAttempt(t *testing.T) {
	r := newRig(t)
	result := r.ask(`{"id":"again-1","tool":"script","args":{"a":"out:go","b":"fail-after:gone"},"queue_timeout":2}`).result()
	if result.Status != contracts.Lost || result.Attempt != 3 {
		t.Errorf("%s, attempt %d: %v", result.Status, result.Attempt, result.Error)
	}
}
