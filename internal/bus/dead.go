package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// maxBuriedHeaders is how much of the headers of a request its dead letter keeps, in bytes, the short ones first. The server
// takes 64 KiB in all, and what the letter says about the request takes up to 16.
const maxBuriedHeaders = 16 << 10

// Bury stores a request that is given up on, with what is known of it, before it leaves the queue: the history of its run is
// read here. A letter whose history cannot be read says so, and is stored all the same.
func (b *Bus) Bury(ctx context.Context, letter contracts.DeadLetter, d contracts.Delivery) error {
	letter.Priority, letter.Tool = d.Priority, toolOf(d.Data)
	if err := b.remember(ctx, &letter); err != nil {
		return err
	}
	about, err := letter.Encode()
	if err != nil {
		return err
	}
	msg := nats.NewMsg(b.subjects.Dead(letter.Engine))
	msg.Data = d.Data
	// No more headers than the server takes: what is buried may be just that which has too many. Those of the server mean
	// something else here.
	room := maxBuriedHeaders
	for _, name := range slices.SortedFunc(maps.Keys(d.Header), func(a, b string) int { return cmp.Compare(len(d.Header.Get(a)), len(d.Header.Get(b))) }) {
		if strings.HasPrefix(name, "Nats-") {
			continue
		}
		for _, value := range d.Header[name] {
			room -= len(name) + len(value)
		}
		if room < 0 {
			break
		}
		msg.Header[name] = d.Header[name]
	}
	msg.Header.Set(contracts.HeaderType, contracts.TypeDead)
	msg.Header.Set(contracts.HeaderDead, string(about))
	msg.Header.Set(nats.MsgIdHdr, strconv.FormatInt(d.Created.Unix(), 36)+"."+strconv.FormatUint(letter.Seq, 10)) // one letter a request
	for {
		_, err := b.js.PublishMsg(ctx, msg)
		if err == nil {
			return nil
		}
		if !transient(err) {
			return b.permanent("store the dead letter", err)
		}
		if err := b.pause(ctx); err != nil {
			return err
		}
	}
}

// toolOf reads the name of the tool of a request that may be wrong in every other way; "" where there is none.
func toolOf(data []byte) string {
	var request struct {
		Tool     string `json:"tool"`
		Contract struct {
			Name string `json:"name"`
		} `json:"contract"`
	}
	_ = json.Unmarshal(data, &request)
	if name := cmp.Or(request.Tool, request.Contract.Name); len(name) <= 64 { // as long as the name of a tool can be
		return name
	}
	return ""
}

// historyTries is how often the history of a run is asked for. More would keep the request from its letter: a stream of
// replies that has lost its leader, or was removed, may not come back soon.
const historyTries = 2

// remember adds the history of the run to its letter, or why there is none. An error is the end of ctx, or of the connection.
func (b *Bus) remember(ctx context.Context, letter *contracts.DeadLetter) error {
	if letter.ID == "" {
		return nil // nothing was ever said about it
	}
	for try := 1; ; try++ {
		whole := *letter
		err := b.history(ctx, &whole)
		if err == nil || try == historyTries || !transient(err) {
			*letter = whole
			if err != nil {
				letter.HistoryError = fmt.Sprintf("read the events of the run: %s", b.explain(err))
				b.log.Warn().Err(err).Str("id", letter.ID).Msg("a dead letter is kept without all of its history")
			}
			return nil
		}
		if err := b.pause(ctx); err != nil {
			return err
		}
	}
}

// historyBatch is how many events are read in one question. Runs have a few; those with much progress to tell have more.
const historyBatch = 256

// history reads the events of the run, all that there are.
func (b *Bus) history(ctx context.Context, letter *contracts.DeadLetter) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for next := uint64(1); ; {
		list, err := b.replies(ctx, b.subjects.Status(letter.ID), next, historyBatch)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, msg := range list {
			var event contracts.Event
			if json.Unmarshal(msg.Data, &event) == nil {
				letter.Remember(event)
			}
			next = msg.Sequence + 1
		}
	}
}
