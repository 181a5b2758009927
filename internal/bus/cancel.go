package bus

import (
	"context"
	"strings"

	"github.com/nats-io/nats.go"
)

// OnCancel has call called with the id of every run that somebody asks to stop from now on. It must not block. The ask is
// stored as well: who begins to handle a request looks there after he has subscribed here.
func (b *Bus) OnCancel(call func(id string)) error {
	prefix := b.subjects.Cancel("")
	_, err := b.nc.Subscribe(b.subjects.Cancel("*"), func(m *nats.Msg) {
		call(strings.TrimPrefix(m.Subject, prefix))
	})
	return err
}

// OnCancelOnce has call called in one instance of the fleet with the id of every run that somebody asks to stop. It may
// block, for others it holds nothing up but asks that come later.
func (b *Bus) OnCancelOnce(call func(id string)) error {
	prefix := b.subjects.Cancel("")
	_, err := b.nc.QueueSubscribe(b.subjects.Cancel("*"), b.subjects.Prefix(), func(m *nats.Msg) {
		call(strings.TrimPrefix(m.Subject, prefix))
	})
	return err
}

// Cancel asks for the end of a run, wherever it is.
func (b *Bus) Cancel(ctx context.Context, id string) error {
	_, err := b.js.Publish(ctx, b.subjects.Cancel(id), nil)
	return b.explain(err)
}
