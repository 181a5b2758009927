package executor

import (
	"context"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// decode reads the request: who it is, what it asks for, and where answers go. With an error, what could be read is set
// all the same, so that the asker can be told.
func (r *run) decode() error {
	d := r.delivery
	r.copies = contracts.Copies{Reply: contracts.ReplyEvents, Trace: d.Header.Trace()}
	if d.Header.Get(contracts.HeaderReply) == contracts.ReplyResult {
		r.copies.Reply = contracts.ReplyResult
	}
	request, err := contracts.DecodeRequest(d.Data)
	r.request = request
	if r.id = request.ID; r.id == "" && (err == nil || !hasID(d.Data)) {
		r.id = contracts.QueueID(d.Created, d.Seq)
	}
	r.logAs(r.id)

	to := d.Header.Get(contracts.HeaderReplyTo)
	if to == "" {
		to = request.ReplyTo
	}
	if to != "" {
		if denied := r.executor.config.Policy.CheckReplyTo(to, r.executor.ownInbox); denied == nil {
			r.copies.Subject = to
		} else if err == nil {
			err = denied
		}
	}
	if err != nil {
		return err
	}
	r.digest = request.Digest()
	return nil
}

func (r *run) logAs(id string) {
	r.log = r.executor.log.With().Str("id", id).Str("tool", toolOf(r.request)).Str("engine", r.delivery.Engine).Logger()
}

// identify gives a request that came without an id, and was passed on, the id that it had in its first queue. The header that
// says so counts if that run was passed on to here and asks for the same.
func (r *run) identify(ctx context.Context) error {
	id := r.delivery.Header.Get(contracts.HeaderID)
	if r.request.ID != "" || hopOf(r.delivery) == 0 || id == r.id || !contracts.IsID(id) {
		return nil
	}
	own := r.id
	record, err := r.executor.bus.Record(ctx, id, true)
	if err != nil {
		return err
	}
	r.id, r.record = id, record
	if r.trust(); r.hop == 0 {
		r.id = own
	} else {
		r.logAs(id)
	}
	r.record = contracts.Record{}
	return nil
}

// hasID reports whether a request that could not be read names an id: then nothing may be written under another one.
func hasID(text []byte) bool {
	n, err := contracts.ParseJSON("", text)
	if err != nil {
		return false
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == "id" {
			return true
		}
	}
	return false
}

func toolOf(request *contracts.Request) string {
	if request.Contract != nil {
		return request.Contract.Name
	}
	return request.Tool
}
