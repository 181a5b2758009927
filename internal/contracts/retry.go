package contracts

import (
	"math/rand/v2"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Retry says after which ends a run is started again, and when. A contract without one is started again only where
// executors died under it.
type Retry struct {
	MaxAttempts int      `json:"max_attempts"`          // starts of the tool for one request, the first and those after deaths of executors included
	Backoff     Duration `json:"backoff,omitempty"`     // wait before the second start, doubled for each later one; 0: DefaultBackoff
	MaxBackoff  Duration `json:"max_backoff,omitempty"` // longest wait; 0: DefaultMaxBackoff
	On          []Status `json:"on,omitempty"`          // statuses of RetryOn; none: DefaultRetryOn
}

// What holds where a retry says nothing.
const (
	DefaultBackoff    = Duration(time.Second)
	DefaultMaxBackoff = Duration(time.Minute)
)

// longestBackoff bounds every wait: what is stored about a run must not be forgotten in it.
const longestBackoff = time.Hour

// RetryOn are the ends after which a contract may ask for another start.
var RetryOn = []Status{Failed, TimedOut, Lost, Unavailable}

// DefaultRetryOn are those where a retry names none.
var DefaultRetryOn = []Status{Failed, TimedOut, Lost}

// maxRetryAttempts bounds how much work one request can make.
const maxRetryAttempts = 100

// The values of delivery.
const (
	AtLeastOnce = "at_least_once"
	AtMostOnce  = "at_most_once"
)

// Attempts is how often the tool of a contract may be started for one request, where most is the operator's bound for
// contracts that say nothing.
func (c *Contract) Attempts(most int) int {
	switch {
	case c.Delivery == AtMostOnce:
		return 1
	case c.Retry == nil:
		return most
	}
	return c.Retry.MaxAttempts
}

// Again reports whether a run that came to this end is to be started again, were it not for the number of attempts.
func (c *Contract) Again(end Status) bool {
	switch {
	case c.Delivery == AtMostOnce && end != Unavailable:
		return false
	case c.Retry == nil:
		return end == Lost
	case len(c.Retry.On) == 0:
		return slices.Contains(DefaultRetryOn, end)
	}
	return slices.Contains(c.Retry.On, end)
}

// Wait is the time before start number attempt+1: it doubles with each, up to MaxBackoff, and lies between half of that
// and all of it, so that runs which failed together do not come back together.
func (r *Retry) Wait(attempt int) time.Duration {
	first, most := time.Duration(r.Backoff), time.Duration(r.MaxBackoff)
	if first == 0 {
		first = time.Duration(DefaultBackoff)
	}
	if most == 0 {
		most = max(first, time.Duration(DefaultMaxBackoff))
	}
	first, most = min(first, longestBackoff), min(most, longestBackoff)
	wait := most
	if doublings := max(attempt-1, 0); doublings < 30 && first < most>>doublings {
		wait = first << doublings
	}
	return wait/2 + rand.N(wait/2+1)
}

// checkDelivery finds what is wrong about retry, delivery and concurrency.
func (c *Contract) checkDelivery(d *decoder, n *yaml.Node, path string) {
	bad := d.checker(n, path)
	d.oneOf(n, path, "delivery", c.Delivery, AtLeastOnce, AtMostOnce)
	if r := c.Retry; r != nil {
		where, at := locate(n, path, "retry")
		r.check(d, where, at)
		if c.Delivery == AtMostOnce && !slices.Equal(r.On, []Status{Unavailable}) {
			bad("retry", "starts a tool again, which delivery: %s forbids; keep one of them, or write on: [%s], which is before any start", AtMostOnce, Unavailable)
		}
	}
	if child(n, "concurrency") != nil && (c.Concurrency < 1 || c.Concurrency > 10_000) {
		bad("concurrency", "must be a number of runs, 1 to 10000")
	}
	if child(n, "concurrency_key") == nil {
		return
	}
	switch key := c.ConcurrencyKey; {
	case child(n, "concurrency") == nil:
		bad("concurrency_key", "needs concurrency beside it: how many runs with the same key there may be at a time")
	case key == "" || utf8.RuneCountInString(key) > 256 || strings.Contains(key, "\x00"):
		bad("concurrency_key", "must have 1 to 256 characters, none of them NUL, as \"{{args.account}}\"")
	default:
		where, at := locate(n, path, "concurrency_key")
		d.checkPlaceholders(where, at, key, c.Parameters)
	}
}

func (r *Retry) check(d *decoder, n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	bad := d.checker(n, path)
	d.require(n, path, "max_attempts", "write how often the tool may be started, as 3")
	if child(n, "max_attempts") != nil && (r.MaxAttempts < 1 || r.MaxAttempts > maxRetryAttempts) {
		bad("max_attempts", "must be 1 to %d", maxRetryAttempts)
	}
	for _, key := range []struct {
		name  string
		value Duration
	}{{"backoff", r.Backoff}, {"max_backoff", r.MaxBackoff}} {
		if child(n, key.name) != nil && key.value <= 0 {
			bad(key.name, "must be above 0")
		}
	}
	if r.Backoff > 0 && r.MaxBackoff > 0 && r.MaxBackoff < r.Backoff {
		bad("max_backoff", "is shorter than backoff")
	}
	list, at := locate(n, path, "on")
	if child(n, "on") != nil && len(r.On) == 0 {
		bad("on", "is empty; name what to start again after, or leave the key out")
	}
	for i, end := range r.On {
		if p := element(at, i); !d.flawed(p) && !slices.Contains(RetryOn, end) {
			names := make([]string, len(RetryOn))
			for i, s := range RetryOn {
				names[i] = string(s)
			}
			d.problem(list.Content[i], p, "unknown value %s; %s", quote(string(end)), didYouMean(string(end), names))
		}
	}
}
