package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// right is one that an executor's user needs.
type right struct {
	pattern string // as it stands in the configuration of the server: tools.reply.*.status
	subject string // to try it on
	data    string // what is published there does nothing
	forces  bool   // what is published there says that it is for another stream than the one that would take it
	silent  bool   // nobody answers
}

// nobody is a run, an executor, an inbox and a consumer that there is not.
const nobody = "executor-doctor"

// unread is a body that no request of JetStream's API takes: not JSON, and not empty.
const unread = "{executor doctor"

// publishRights are the subjects that an executor publishes to, where all streams and consumers are made.
func (b *Bus) publishRights(engines []string, name string) []right {
	s := b.subjects
	stored := func(pattern, subject string) right { return right{pattern: pattern, subject: subject, forces: true} }
	api := func(pattern, subject string) right {
		return right{pattern: "$JS.API." + pattern, subject: "$JS.API." + subject, data: unread}
	}
	named := func(name string) right { return api(name, name) }
	exec, reply, result, cancel := s.Name(streamExec), s.Name(streamReply), s.Name(streamResult), s.Name(streamCancel)
	executors := s.Name(bucketExecutors)
	presence := "KV_" + executors
	limits, registry := s.Name(streamLimits), "KV_"+s.Name(bucketContracts)
	rights := []right{
		stored(s.Status("*"), s.Status(nobody)), stored(s.Output("*"), s.Output(nobody)), stored(s.Result("*"), s.Result(nobody)),
		stored("$KV."+executors+".*", "$KV."+executors+"."+cmp.Or(name, nobody)),
		{pattern: "_INBOX.>", subject: "_INBOX." + nobody + "." + b.name, silent: true},
		named("INFO"), named("STREAM.INFO." + exec), named("STREAM.INFO." + reply), named("STREAM.INFO." + result),
		named("STREAM.INFO." + cancel), named("STREAM.INFO." + s.Name(streamDead)), named("STREAM.INFO." + presence),
		named("DIRECT.GET." + exec), named("DIRECT.GET." + reply),
		api("DIRECT.GET."+reply+"."+s.Reply(">"), "DIRECT.GET."+reply+"."+s.Status(nobody)),
		api("DIRECT.GET."+result+"."+s.Reply(">"), "DIRECT.GET."+result+"."+s.Result(nobody)),
		api("DIRECT.GET."+cancel+"."+s.Cancel("*"), "DIRECT.GET."+cancel+"."+s.Cancel(nobody)),
		api("CONSUMER.CREATE."+presence+".>", "CONSUMER.CREATE."+presence+"."+nobody+".$KV."+executors+".>"),
		api("CONSUMER.DELETE."+presence+".*", "CONSUMER.DELETE."+presence+"."+nobody),
		named("STREAM.CREATE." + presence),
		{pattern: "$JS.FC." + presence + ".>", subject: "$JS.FC." + presence + "." + nobody + ".x", silent: true},
		stored(s.Limit("*", "*"), s.Limit(nobody, "0")), named("STREAM.INFO." + limits), named("STREAM.MSG.DELETE." + limits),
		api("DIRECT.GET."+limits+"."+s.Limit("*", "*"), "DIRECT.GET."+limits+"."+s.Limit(nobody, "0")),
		named("STREAM.INFO." + registry),
		api("CONSUMER.CREATE."+registry+".>", "CONSUMER.CREATE."+registry+"."+nobody+".$KV."+s.Name(bucketContracts)+".>"),
		api("CONSUMER.DELETE."+registry+".*", "CONSUMER.DELETE."+registry+"."+nobody),
		{pattern: "$JS.FC." + registry + ".>", subject: "$JS.FC." + registry + "." + nobody + ".x", silent: true},
		// Of engines that nobody serves, whose requests are looked after.
		api("CONSUMER.CREATE."+exec+".>", "CONSUMER.CREATE."+exec+"."+nobody+"."+s.Exec(nobody, "")),
	}
	for _, engine := range engines {
		rights = append(rights, stored(s.Dead(engine), s.Dead(engine)),
			right{pattern: "$JS.ACK." + exec + ".>", subject: "$JS.ACK." + exec + "." + nobody + "-" + engine + ".1.1.1.1.0", silent: true})
		for _, priority := range contracts.Priorities {
			rights = append(rights, stored(s.Exec(engine, priority), s.Exec(engine, priority)),
				api("CONSUMER.INFO."+exec+".*", "CONSUMER.INFO."+exec+"."+s.Consumer(engine, priority)),
				api("CONSUMER.MSG.NEXT."+exec+".*", "CONSUMER.MSG.NEXT."+exec+"."+s.Consumer(engine, priority)))
			bell := s.Bell(engine)
			if priority != contracts.PriorityNormal {
				bell += "." + priority
			}
			rights = append(rights, right{pattern: s.Bell(">"), subject: bell, silent: true}) // somebody looks into a queue, in vain
		}
	}
	return rights
}

// subscribeRights are the subjects that an executor listens to.
func (b *Bus) subscribeRights(engines []string) []string {
	s := b.subjects
	subjects := []string{s.Cancel("*"), s.Run(), s.Run() + ".*", s.Stream(), s.Stream() + ".*", s.Follow(), s.Discover(), s.Reply("*") + ".*", "$SRV.>"}
	for _, engine := range engines {
		subjects = append(subjects, s.Bell(engine), s.Bell(engine)+".*")
	}
	return subjects
}

// Rights tries what an executor must be allowed to do and returns what it may not, as "publish tools.reply.*.status": the
// permission that is missing. It changes nothing: what it publishes to a stream says that it is for another one, so that the
// server refuses it, once it is allowed to be published at all; and what it asks of JetStream's API has a body that cannot
// be read. name is that of the executor, where it has a fixed one: its user may be allowed to write the presence of no other.
func (b *Bus) Rights(ctx context.Context, engines []string, name string) ([]string, error) {
	var mu sync.Mutex
	var denied []string
	var tries sync.WaitGroup
	try := func(what, pattern string, do func() error) {
		tries.Go(func() {
			if err := do(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				denied = append(denied, what+" "+pattern)
			}
		})
	}
	if err := b.trySubscribe(ctx, b.nc.NewInbox()); errors.Is(err, nats.ErrPermissionViolation) {
		// No question is answered: what else may be missing cannot be found out.
		return nil, fmt.Errorf("this user may not read the answers to its questions; it needs subscribe: [%q], or another inbox (nats.inbox_prefix, --inbox-prefix)",
			strings.TrimSuffix(b.nc.Opts.InboxPrefix, "."+b.name)+".>")
	}
	for _, r := range b.publishRights(engines, name) {
		try("publish", r.pattern, func() error { return b.tryPublish(ctx, r) })
	}
	// Only then: who subscribes is somebody to publish to where there is no stream, and would never answer.
	tries.Wait()
	for _, subject := range b.subscribeRights(engines) {
		try("subscribe", subject, func() error { return b.trySubscribe(ctx, subject) })
	}
	tries.Wait()
	slices.Sort(denied)
	return slices.Compact(denied), ctx.Err()
}

// How long we wait for an answer where nothing was denied, and for a denial after the server has dealt with a message that
// nobody answers: the library tells of a denial in a goroutine of its own, which on a busy machine runs later than we hear
// that the server is done. All are tried at the same time, so that it is waited for once.
const (
	rightsWait  = 2 * time.Second
	rightsQuiet = 500 * time.Millisecond
)

// tryPublish is an error where the server forbids a publish.
func (b *Bus) tryPublish(ctx context.Context, r right) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told, forget := b.denied.watch(r.subject)
	defer forget()
	msg := &nats.Msg{Subject: r.subject, Data: []byte(r.data), Header: nats.Header{}}
	if r.forces {
		msg.Header.Set(nats.ExpectedStreamHdr, "EXECUTOR_DOCTOR")
	}
	go func() {
		defer cancel()
		answer, stop := context.WithTimeout(ctx, rightsWait)
		defer stop()
		if !r.silent {
			b.nc.RequestMsgWithContext(answer, msg) //nolint:errcheck // any answer will do, also that nobody is there
			return
		}
		if b.nc.PublishMsg(msg) == nil && b.nc.FlushWithContext(answer) == nil {
			select {
			case <-time.After(rightsQuiet):
			case <-ctx.Done():
			}
		}
	}()
	denied := fmt.Errorf("publish %s: %w", r.subject, nats.ErrPermissionViolation)
	select {
	case <-told:
		return denied
	case <-ctx.Done():
	}
	select { // it may have been told while the wait ended
	case <-told:
		return denied
	default:
		return nil
	}
}

// trySubscribe is nil where the server takes a subscription.
func (b *Bus) trySubscribe(ctx context.Context, subject string) error {
	sub, err := b.nc.QueueSubscribeSync(subject, "executor-doctor-"+b.name)
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	ctx, cancel := context.WithTimeout(ctx, rightsWait)
	defer cancel()
	// The server says no, if it does, before it answers the ping that follows the subscription.
	if err := b.nc.FlushWithContext(ctx); err != nil {
		return err
	}
	_, err = sub.NextMsg(time.Millisecond)
	if errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	return nil
}

// MayListen reports whether the user of this connection may read an inbox, which agents and operators may, each its own.
func (b *Bus) MayListen(ctx context.Context, inbox string) bool {
	return !errors.Is(b.trySubscribe(ctx, inbox), nats.ErrPermissionViolation)
}
