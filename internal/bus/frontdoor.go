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
	// Admit checks a request as far as that can be done before it runs, and says in which queue it belongs: that of the
	// engine which the asker named, or of the contract's where that is "". An error is a *contracts.Error; it becomes the
	// answer.
	Admit func(ctx context.Context, request *contracts.Request, named string) (engine string, err error)
	// ReplyTo checks where answers are to go.
	ReplyTo func(subject string) error
	// Stored is told of the engine for which a request was stored. It may be nil.
	Stored func(engine string)
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
	work    context.Context // of followers
	cancel  context.CancelFunc
	places  chan struct{} // for requests being stored
	follows chan struct{} // for followers

	mu     sync.Mutex
	busy   sync.WaitGroup
	closed bool
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
	// From now on nobody hears that nobody is there.
	if err := b.patiently(f.work, func() error { return b.nc.FlushTimeout(requestTimeout) }); err != nil {
		f.Close()
		return nil, fmt.Errorf("register the NATS service: %w", err)
	}
	return f, nil
}

// Close stops taking requests and waits until those under way are stored. Followers are cut off: another front door
// goes on for them.
func (f *FrontDoor) Close() {
	if err := f.service.Stop(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		f.bus.log.Debug().Err(err).Msg("the NATS service did not stop cleanly")
	}
	// What the server had sent before it heard that is handed on by the library, a little later, and not lost.
	if f.bus.Connected() && f.bus.nc.FlushTimeout(time.Second) == nil {
		time.Sleep(lastRequests)
	}
	f.cancel()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.busy.Wait()
}

// lastRequests is how long the library may take to hand on what it has.
const lastRequests = 20 * time.Millisecond

// enter has do run in a goroutine that Close waits for; after Close it does nothing, and the asker finds another door.
func (f *FrontDoor) enter(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.busy.Go(do)
	}
}

// ask handles tools.run and tools.stream.
func (f *FrontDoor) ask(reply string) func(micro.Request) {
	return func(r micro.Request) {
		f.places <- struct{}{}
		f.enter(func() {
			defer func() { <-f.places }()
			ctx, cancel := context.WithTimeout(context.Background(), storeWait)
			defer cancel()
			f.take(ctx, r, reply)
		})
	}
}

func (f *FrontDoor) take(ctx context.Context, r micro.Request, reply string) {
	to := contracts.Copies{Subject: r.Reply(), Reply: reply, Trace: contracts.Header(r.Headers()).Trace()}
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
		refuse("", contracts.TooLarge(len(r.Data()), most))
		return
	}
	request, err := contracts.DecodeRequest(r.Data())
	if err != nil {
		refuse(request.ID, err)
		return
	}
	named := ""
	for _, front := range []string{f.bus.subjects.Run(), f.bus.subjects.Stream()} {
		if engine, ok := strings.CutPrefix(r.Subject(), front+"."); ok {
			named = engine
		}
	}
	engine, err := f.desk.Admit(ctx, request, named)
	if err != nil {
		refuse(request.ID, err)
		return
	}
	ack, err := f.store(ctx, request, engine, r.Data(), to)
	if err == nil && f.desk.Stored != nil {
		f.desk.Stored(engine)
	}
	var refusal *contracts.Error
	switch {
	case errors.As(err, &refusal):
		refuse(request.ID, refusal)
		return
	case err != nil:
		// Whether it was stored nobody knows. To say that it was not could be the first of two answers; the asker asks again,
		// by its id if it has one.
		f.bus.log.Warn().Err(err).Str("id", request.ID).Msg("a request may not have been stored; its asker gets no answer from here")
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

// store puts a request into its queue. An error that is a *contracts.Error means that it is not stored; another one that
// it may be.
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
	if isStoreFailed(err) {
		return nil, contracts.Errorf(contracts.QueueFull, "the queue of the engine %s is full (%s); try again later", engine, err)
	}
	if errors.As(err, &api) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrMaxPayload) {
		return nil, contracts.Errorf(contracts.EngineUnavailable, "the request could not be stored: %s", f.bus.explain(err))
	}
	return nil, f.bus.explain(err)
}

// codeStoreFailed is the server's answer when a stream takes no more: "maximum messages per subject exceeded" and its like.
const codeStoreFailed = 10077

// discover handles tools.discover. The question may be empty.
func (f *FrontDoor) discover(r micro.Request) {
	f.enter(func() {
		if !f.answerable(r) {
			return
		}
		ctx, cancel := context.WithTimeout(f.work, requestTimeout)
		defer cancel()
		answer, err := f.list(ctx, r.Data())
		if err == nil {
			err = f.bus.nc.Publish(r.Reply(), answer)
		}
		if err != nil {
			f.fail(r, err)
		}
	})
}

func (f *FrontDoor) list(ctx context.Context, question []byte) ([]byte, error) {
	ask, err := contracts.DecodeDiscover(question)
	if err != nil {
		return nil, err
	}
	discovery, err := f.desk.Discover(ctx)
	if err != nil {
		return nil, err
	}
	if ask.Tool != "" {
		discovery = about(discovery, ask.Tool)
	}
	answer := any(discovery)
	if ask.As != "" {
		if answer, err = contracts.Declare(discovery.Tools, ask.As); err != nil {
			return nil, err
		}
	}
	text, err := encode(answer)
	if err == nil && int64(len(text)) > f.bus.maxRequest() {
		return nil, contracts.Errorf(contracts.InvalidRequest, `the answer has %d bytes, more than the server takes; ask for one tool: {"tool": "name"}`, len(text))
	}
	return text, err
}

// about is what a discovery has of one tool.
func about(d contracts.Discovery, tool string) contracts.Discovery {
	some := []*contracts.Contract{}
	for _, c := range d.Tools {
		if c.Name == tool {
			some = append(some, c)
		}
	}
	var sources map[string]string
	if source, ok := d.Sources[tool]; ok {
		sources = map[string]string{tool: source}
	}
	var refused []contracts.Refusal
	for _, one := range d.Refused {
		if one.Name == tool {
			refused = append(refused, one)
		}
	}
	d.Tools, d.Sources, d.Refused = some, sources, refused
	return d
}

// fail answers with an error of the service (ADR-32). Not by the library, which may be asked for an answer only until the
// handler has returned.
func (f *FrontDoor) fail(r micro.Request, err error) {
	e := contracts.AsError(err)
	code, text := serviceError(&contracts.Result{Status: e.Status(), Error: e})
	body, _ := json.Marshal(map[string]any{"type": "error", "error": e})
	msg := &nats.Msg{Subject: r.Reply(), Data: body, Header: nats.Header{
		contracts.HeaderServiceErrorCode: {strconv.Itoa(code)}, contracts.HeaderServiceError: {text},
	}}
	if err := f.bus.nc.PublishMsg(msg); err != nil {
		f.bus.log.Debug().Err(err).Msg("an error could not be told")
	}
}
