package bus

import (
	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Weights say how requests of different priority share an instance while all of them wait. The zero value is strict: a
// lower priority is taken only while nothing of a higher one waits.
type Weights struct {
	High   int `json:"high"`
	Normal int `json:"normal"`
	Low    int `json:"low"`
}

// share is the step of a queue per request: the inverse of its weight.
func (w Weights) share(priority string) float64 {
	weight := map[string]int{contracts.PriorityHigh: w.High, contracts.PriorityNormal: w.Normal, contracts.PriorityLow: w.Low}[priority]
	if weight <= 0 {
		return 0
	}
	return 1 / float64(weight)
}

// queue is what waits for an engine with one priority.
type queue struct {
	priority string
	consumer jetstream.Consumer
	waiting  uint64 // how many were left at the last look
	look     bool   // false where it is known to be empty: it was, and the bell would have rung since

	// Whose turn it is (stride scheduling): each request taken moves the queue on by its share, and the queue that is least
	// far on is next. One that was empty joins where the others are: it has saved nothing up.
	share float64
	pass  float64
}

// expect notes that there may be something in a queue.
func (l *loop) expect(q *queue) {
	if !q.look {
		q.look = true
		q.pass = max(q.pass, l.turn)
	}
}

// next is the queue to look into; nil where all are known to be empty. At the same pass the higher priority is first.
func (l *loop) next() *queue {
	var first *queue
	for i := range l.queues {
		if q := &l.queues[i]; q.look && (first == nil || q.pass < first.pass) {
			first = q
		}
	}
	return first
}

// took notes that a request was taken from a queue.
func (l *loop) took(q *queue) {
	l.turn = q.pass
	q.pass += q.share
}
