package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// DeadLetter is a request that was given up on, as it is kept for people to look at. All that is done with dead letters
// needs the rights of an operator: it goes to their stream.
type DeadLetter struct {
	Letter uint64    `json:"letter"` // its number: its place in the stream of dead letters
	Kept   time.Time `json:"kept"`   // since when
	contracts.DeadLetter
	// Header and Data are the request as it came. Only of one that was asked for by its number.
	Header map[string][]string `json:"-"`
	Data   []byte              `json:"-"`
}

// DeadFilter chooses dead letters. The zero DeadFilter is all of them.
type DeadFilter struct {
	Engine string    // in whose queue the request was
	Code   Code      // why it was given up on
	Since  time.Time // kept at that time or later
	Before time.Time // kept before it
	Newest int       // only so many, the newest
}

// ErrNoDeadLetter means that there is no such letter: it was removed, or is older than letters are kept.
var ErrNoDeadLetter = errors.New("there is no such dead letter")

// deadWait is how long the questions of one call may take together. All letters may have to be read.
const deadWait = 30 * time.Second

// DeadLetters lists dead letters, the oldest first, without the requests themselves.
func (c *Client) DeadLetters(ctx context.Context, filter DeadFilter) ([]DeadLetter, error) {
	ctx, cancel := context.WithTimeout(ctx, deadWait)
	defer cancel()
	letters, err := c.deadLetters(ctx, filter)
	if err != nil {
		return nil, c.explain("read the dead letters", streamDead, err)
	}
	if letters == nil {
		letters = []DeadLetter{} // in JSON a list
	}
	return letters, nil
}

// DeadLetter returns the letter of that number, with the request. The error is ErrNoDeadLetter where there is none.
func (c *Client) DeadLetter(ctx context.Context, number uint64) (*DeadLetter, error) {
	ctx, cancel := context.WithTimeout(ctx, deadWait)
	defer cancel()
	stream, err := c.deadStream(ctx)
	var msg *jetstream.RawStreamMsg
	if err == nil {
		msg, err = stream.GetMsg(ctx, max(number, 1)) // 0 would be the first
	}
	if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && msg.Sequence != number {
		return nil, ErrNoDeadLetter
	}
	if err != nil {
		return nil, c.explain(fmt.Sprintf("read the dead letter %d", number), streamDead, err)
	}
	letter := c.deadLetter(msg.Subject, number, msg.Time, msg.Header)
	letter.Header, letter.Data = map[string][]string{}, msg.Data
	for name, values := range msg.Header {
		if !strings.HasPrefix(name, "Nats-") && name != contracts.HeaderType && name != contracts.HeaderDead { // the server's, the letter's
			letter.Header[name] = values
		}
	}
	return &letter, nil
}

// RemoveDeadLetter removes the letter of that number. The error is ErrNoDeadLetter where there is none.
func (c *Client) RemoveDeadLetter(ctx context.Context, number uint64) error {
	ctx, cancel := context.WithTimeout(ctx, deadWait)
	defer cancel()
	stream, err := c.deadStream(ctx)
	if err == nil {
		err = stream.DeleteMsg(ctx, number)
	}
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		// The server has one answer for a message that is not there and for all else.
		if _, gone := stream.GetMsg(ctx, max(number, 1)); number == 0 || errors.Is(gone, jetstream.ErrMsgNotFound) {
			return ErrNoDeadLetter
		}
	}
	if err != nil {
		return c.explain(fmt.Sprintf("remove the dead letter %d", number), streamDead, err)
	}
	return nil
}

// RemoveDeadLetters removes all letters of an engine up to and with that number; of all engines where engine is "".
func (c *Client) RemoveDeadLetters(ctx context.Context, engine string, through uint64) error {
	ctx, cancel := context.WithTimeout(ctx, deadWait)
	defer cancel()
	stream, err := c.deadStream(ctx)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(c.deadSubject(engine)), jetstream.WithPurgeSequence(through+1))
	}
	if err != nil {
		return c.explain("remove dead letters", streamDead, err)
	}
	return nil
}

const streamDead = "DEAD"

// deadStream asks for the stream. Who has no right to anything there is not left to wait for the rest.
func (c *Client) deadStream(ctx context.Context) (jetstream.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	js, err := jetstream.New(c.nc)
	if err != nil {
		return nil, err
	}
	return js.Stream(ctx, c.subjects.Name(streamDead))
}

func (c *Client) deadSubject(engine string) string {
	if engine == "" {
		engine = "*"
	}
	return c.subjects.Dead(engine)
}

// Letters are read from the newest back, so that a list of a few does not read all: first so many, then twice as many.
const (
	deadWindow    = 64
	deadWindowMax = 4096
)

func (c *Client) deadLetters(ctx context.Context, filter DeadFilter) ([]DeadLetter, error) {
	stream, err := c.deadStream(ctx)
	if err != nil {
		return nil, err
	}
	var letters []DeadLetter
	state := stream.CachedInfo().State
	for end, window := state.LastSeq, uint64(deadWindow); state.Msgs > 0 && end >= state.FirstSeq; window = min(2*window, deadWindowMax) {
		begin := state.FirstSeq
		if end-begin >= window {
			begin = end - window + 1
		}
		found, err := c.deadBetween(ctx, stream, c.deadSubject(filter.Engine), begin, end)
		if err != nil {
			return nil, err
		}
		enough := begin == state.FirstSeq || len(found) > 0 && found[0].Kept.Before(filter.Since)
		found = slices.DeleteFunc(found, func(l DeadLetter) bool {
			return filter.Code != "" && l.Error.Code != filter.Code || l.Kept.Before(filter.Since) || !filter.Before.IsZero() && !l.Kept.Before(filter.Before)
		})
		letters = slices.Concat(found, letters)
		if most := filter.Newest; most > 0 && len(letters) >= most {
			return letters[len(letters)-most:], nil
		}
		if enough {
			break
		}
		end = begin - 1
	}
	return letters, nil
}

// deadBetween reads the letters of these numbers, without the requests, which may be large: by a consumer, because a direct
// get has no way to leave them out.
func (c *Client) deadBetween(ctx context.Context, stream jetstream.Stream, subject string, begin, end uint64) ([]DeadLetter, error) {
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: begin, FilterSubject: subject, HeadersOnly: true,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: deadWait,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askWait)
		defer cancel()
		_ = stream.DeleteConsumer(ctx, consumer.CachedInfo().Name) // else the server does, a little later
	}()
	var letters []DeadLetter
	for pending, last := consumer.CachedInfo().NumPending, uint64(0); pending > 0 && last < end; {
		batch, err := consumer.FetchNoWait(int(min(pending, end-begin+1)))
		if err != nil {
			return nil, err
		}
		came := 0
		for msg := range batch.Messages() {
			about, err := msg.Metadata()
			if err != nil {
				return nil, err
			}
			came, last, pending = came+1, about.Sequence.Stream, about.NumPending
			if last <= end {
				letters = append(letters, c.deadLetter(msg.Subject(), last, about.Timestamp, msg.Headers()))
			}
		}
		if err := errors.Join(batch.Error(), ctx.Err()); err != nil {
			return nil, err
		}
		if came == 0 {
			// A fetch ends without an error also where the connection was lost. Or what was there has just been removed.
			info, err := consumer.Info(ctx)
			if err != nil {
				return nil, err
			}
			if info.NumPending == pending {
				return nil, errors.New("the server stopped answering")
			}
			pending = info.NumPending
		}
	}
	return letters, nil
}

// deadLetter reads what a letter says about its request. Of one that cannot be read, as of a message that somebody else
// published there, the error says that.
func (c *Client) deadLetter(subject string, number uint64, kept time.Time, header map[string][]string) DeadLetter {
	about, err := contracts.DecodeDeadLetter(contracts.Header(header).Get(contracts.HeaderDead))
	if err != nil {
		about = contracts.DeadLetter{Stored: kept, Time: kept, Error: contracts.Errorf(contracts.Internal, "this is no dead letter of an executor: %s", err)}
	}
	about.Engine = strings.TrimPrefix(subject, c.subjects.Dead(""))
	return DeadLetter{Letter: number, Kept: kept, DeadLetter: about}
}
