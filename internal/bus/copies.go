package bus

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// encode is json.Marshal without HTML escaping, which would make six bytes of every "<" of a tool's output.
func encode(v any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

// copy sends what was said about a run to the reply_to of its request: a core publish, and lost where nobody listens or
// the connection is away. What is stored is the truth. An error means that it was not even sent.
func (b *Bus) copy(to contracts.Copies, msg *nats.Msg) error {
	if to.Subject == "" {
		return nil
	}
	return b.nc.PublishMsg(&nats.Msg{Subject: to.Subject, Header: msg.Header, Data: msg.Data})
}

// CopyEvent sends an event to reply_to, if that takes events.
func (b *Bus) CopyEvent(to contracts.Copies, event contracts.Event) {
	if to.Subject != "" && to.Reply != contracts.ReplyResult {
		_ = b.copy(to, b.eventMessage(to.Subject, event, to.Trace))
	}
}

// CopyResult sends the result to reply_to, and after it the empty message that ends a stream of replies (ADR-47).
func (b *Bus) CopyResult(to contracts.Copies, result *contracts.Result) {
	if to.Subject == "" {
		return
	}
	data, err := encode(result)
	if err != nil {
		b.log.Error().Err(err).Str("id", result.ID).Msg("a result cannot be encoded")
		return
	}
	msg := b.message(to.Subject, contracts.TypeResult, result.ID, result.Attempt, result.Executor, to.Trace)
	msg.Data = data
	setServiceError(msg, result)
	_ = b.copy(to, msg)
	if to.Reply != contracts.ReplyResult {
		b.nc.Publish(to.Subject, nil)
	}
}

// setServiceError marks the result of a run that was not run to an end, so that clients of NATS services see an error.
func setServiceError(msg *nats.Msg, result *contracts.Result) {
	code, text := serviceError(result)
	if code != 0 {
		msg.Header.Set(contracts.HeaderServiceErrorCode, strconv.Itoa(code))
		msg.Header.Set(contracts.HeaderServiceError, text)
	}
}

// serviceError is a code in the manner of HTTP for a result; 0 where the tool ran.
func serviceError(result *contracts.Result) (code int, text string) {
	switch result.Status {
	case contracts.Succeeded, contracts.Failed, contracts.TimedOut, contracts.Cancelled:
		return 0, ""
	case contracts.Expired:
		code = 408
	case contracts.Unavailable:
		code = 503
	case contracts.Lost, contracts.Unknown:
		code = 500
	default:
		code = 400
	}
	if result.Error == nil {
		return code, string(result.Status)
	}
	switch result.Error.Code {
	case contracts.UnknownTool:
		code = 404
	case contracts.PolicyDenied:
		code = 403
	case contracts.IDConflict:
		code = 409
	case contracts.QueueFull:
		code = 429
	}
	return code, headerText(result.Error.Error())
}

// headerText is a text as a header can hold it: one line.
func headerText(s string) string {
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, []byte(s)))
}
