package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Desk is what the front door asks about a request before it stores it.
type Desk struct {
	// Admit checks a request as far as that can be done before it runs, and says in which queue it belongs. An error is a
	// *contracts.Error; it becomes the answer.
	Admit func(context.Context, *contracts.Request) (engine string, err error)
	// ReplyTo checks where answers are to go.
	ReplyTo func(subject string) error
	// Discover lists what can be asked for.
	Discover func(context.Context) (contracts.Discovery, error)
}

// FrontDoor answers those who ask rather than publish to a queue: tools.run, tools.stream, tools.follow, tools.discover. It
// keeps no state: a request is checked and stored with the asker's inbox, and whoever runs it answers there; so a front
// door that dies loses nothing.
type FrontDoor struct {
	bus     *Bus
	desk    Desk
	service micro.Service
	work    context.Context
	cancel  context.CancelFunc
	busy    sync.WaitGroup
	places  chan struct{} // for requests being stored
	follows chan struct{} // for followers
}

// Bounds of the front door of one instance. Beyond the first, requests wait in the connection; beyond the second, they
// are refused.
const (
	frontDoorPlaces  = 256
	frontDoorFollows = 1024
	storeWait        = 10 * time.Second
)

// semVer is what the service framework takes for a version (semver.org, the form without a leading v).
var semVer = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

// OpenFrontDoor registers the service. Close it before the bus.
func (b *Bus) OpenFrontDoor(desk Desk, version string) (*FrontDoor, error) {
	if !semVer.MatchString(version) {
		version = "0.0.0"
	}
	f := &FrontDoor{bus: b, desk: desk, places: make(chan struct{}, frontDoorPlaces), follows: make(chan struct{}, frontDoorFollows)}
	f.work, f.cancel = context.WithCancel(context.Background())
	service, err := micro.AddService(b.nc, micro.Config{
		Name: "executor", Version: version, Description: "runs tools for agents", QueueGroup: b.subjects.Prefix(),
		Metadata: map[string]string{"executor": b.name, "prefix": b.subjects.Prefix()},
	})
	if err != nil {
		f.cancel()
		return nil, fmt.Errorf("register the NATS service: %w", err)
	}
	f.service = service
	run, stream := b.subjects.Run(), b.subjects.Stream()
	for _, e := range []struct {
		name, subject string
		handle        func(micro.Request)
	}{
		{"run", run, f.ask(contracts.ReplyResult)},
		{"run-on", run + ".*", f.ask(contracts.ReplyResult)},
		{"stream", stream, f.ask(contracts.ReplyEvents)},
		{"stream-on", stream + ".*", f.ask(contracts.ReplyEvents)},
		{"follow", b.subjects.Follow(), f.follow},
		{"discover", b.subjects.Discover(), f.discover},
	} {
		if err := service.AddEndpoint(e.name, micro.HandlerFunc(e.handle), micro.WithEndpointSubject(e.subject)); err != nil {
			f.Close()
			return nil, fmt.Errorf("register the NATS service: %w", err)
		}
	}
	return f, nil
}

// Close stops taking requests and waits until those under way are stored. Followers are cut off: another front door
// goes on for them.
func (f *FrontDoor) Close() {
	if err := f.service.Stop(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		f.bus.log.Debug().Err(err).Msg("the NATS service did not stop cleanly")
	}
	f.cancel()
	f.busy.Wait()
}

// ask handles tools.run and tools.stream.
func (f *FrontDoor) ask(reply string) func(micro.Request) {
	return func(r micro.Request) {
		f.places <- struct{}{}
		f.busy.Go(func() {
			defer func() { <-f.places }()
			ctx, cancel := context.WithTimeout(f.work, storeWait)
			defer cancel()
			f.take(ctx, r, reply)
		})
	}
}

func (f *FrontDoor) take(ctx context.Context, r micro.Request, reply string) {
	to := contracts.Copies{Subject: r.Reply(), Reply: reply, Trace: r.Headers().Get(contracts.HeaderTraceparent)}
	if !f.answerable(r) {
		return
	}
	refuse := func(id string, err error) {
		f.bus.CopyResult(to, &contracts.Result{
			Type: contracts.TypeResult, ID: id, Status: contracts.AsError(err).Status(), Error: contracts.AsError(err),
			Executor: f.bus.name, Time: time.Now().UTC(),
		})
	}
	if most := f.bus.maxRequest(); int64(len(r.Data())) > most {
		refuse("", contracts.Errorf(contracts.InvalidRequest, "the request has %d bytes; this server takes %d at most: hand large input over by a file or an object store", len(r.Data()), most))
		return
	}
	request, err := contracts.DecodeRequest(r.Data())
	if err != nil {
		refuse(request.ID, err)
		return
	}
	engine, err := f.desk.Admit(ctx, request)
	if err != nil {
		refuse(request.ID, err)
		return
	}
	for _, front := range []string{f.bus.subjects.Run(), f.bus.subjects.Stream()} {
		if named, ok := strings.CutPrefix(r.Subject(), front+"."); ok {
			engine = named
		}
	}
	ack, err := f.store(ctx, request, engine, r.Data(), to)
	if err != nil {
		refuse(request.ID, err)
		return
	}
	if reply == contracts.ReplyEvents {
		id := request.ID
		if id == "" {
			id = contracts.QueueID(f.bus.streams.created, ack.Sequence)
		}
		f.bus.CopyEvent(to, contracts.Event{
			Type: contracts.TypeAccepted, ID: id, Executor: f.bus.name, Time: time.Now().UTC(),
			Stream: ack.Stream, Seq: ack.Sequence, Reply: f.bus.subjects.Reply(id),
		})
	}
}

// answerable reports whether we may answer where the asker wants: nobody uses an executor to write where he may not.
func (f *FrontDoor) answerable(r micro.Request) bool {
	err := f.desk.ReplyTo(r.Reply())
	if err != nil {
		f.bus.log.Warn().Err(err).Str("subject", r.Subject()).Msg("a request wants its answer where none may go; it was dropped")
	}
	return err == nil
}

// store puts a request into its queue.
func (f *FrontDoor) store(ctx context.Context, request *contracts.Request, engine string, data []byte, to contracts.Copies) (*jetstream.PubAck, error) {
	msg := nats.NewMsg(f.bus.subjects.Exec(engine, request.Priority))
	msg.Data = data
	msg.Header.Set(contracts.HeaderReplyTo, to.Subject)
	msg.Header.Set(contracts.HeaderReply, to.Reply)
	if to.Trace != "" {
		msg.Header.Set(contracts.HeaderTraceparent, to.Trace)
	}
	if request.ID != "" {
		msg.Header.Set(nats.MsgIdHdr, request.ID+".0."+engine)
	}
	ack, err := f.bus.js.PublishMsg(ctx, msg)
	if err == nil && ack.Duplicate {
		// The same id again. Whether it asks for the same, and whether that has run, is found out by whoever takes it; so
		// that somebody does, it goes in once more.
		msg.Header.Set(nats.MsgIdHdr, request.ID+".0."+engine+"."+nuid.Next())
		ack, err = f.bus.js.PublishMsg(ctx, msg)
	}
	if err == nil {
		return ack, nil
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeStoreFailed {
		return nil, contracts.Errorf(contracts.QueueFull, "the queue of the engine %s is full (%s); try again later", engine, api.Description)
	}
	return nil, contracts.Errorf(contracts.EngineUnavailable, "the request could not be stored: %s", f.bus.explain(err))
}

// codeStoreFailed is the server's answer when a stream takes no more: "maximum messages per subject exceeded" and its like.
const codeStoreFailed = 10077

// discover handles tools.discover. The question may be empty, or {"tool": name}.
func (f *FrontDoor) discover(r micro.Request) {
	f.busy.Go(func() {
		if !f.answerable(r) {
			return
		}
		ctx, cancel := context.WithTimeout(f.work, requestTimeout)
		defer cancel()
		answer, err := f.list(ctx, r.Data())
		if err == nil {
			err = r.Respond(answer)
		}
		if err != nil {
			f.fail(r, err)
		}
	})
}

func (f *FrontDoor) list(ctx context.Context, question []byte) ([]byte, error) {
	var ask struct {
		Tool string `json:"tool"`
	}
	if len(question) > 0 {
		n, err := contracts.ParseJSON("", question)
		if err != nil {
			return nil, contracts.Errorf(contracts.InvalidRequest, "the question %s", err)
		}
		if problems := contracts.Decode("", n, &ask); len(problems) > 0 {
			return nil, contracts.Errorf(contracts.InvalidRequest, "%s", problems)
		}
	}
	answer, err := f.desk.Discover(ctx)
	if err != nil {
		return nil, err
	}
	if ask.Tool != "" {
		var some []*contracts.Contract
		for _, c := range answer.Tools {
			if c.Name == ask.Tool {
				some = append(some, c)
			}
		}
		answer.Tools = some
	}
	text, err := encode(answer)
	if err == nil && int64(len(text)) > f.bus.maxRequest() {
		return nil, contracts.Errorf(contracts.InvalidRequest, `the answer has %d bytes, more than the server takes; ask for one tool: {"tool": "name"}`, len(text))
	}
	return text, err
}

// fail answers with an error of the service.
func (f *FrontDoor) fail(r micro.Request, err error) {
	e := contracts.AsError(err)
	code, text := serviceError(&contracts.Result{Status: e.Status(), Error: e})
	body, _ := json.Marshal(map[string]any{"type": "error", "error": e})
	if err := r.Error(strconv.Itoa(code), text, body); err != nil {
		f.bus.log.Debug().Err(err).Msg("an error could not be told")
	}
}
