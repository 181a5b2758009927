package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// streams are the handles of what Declare found or made.
type streams struct {
	exec, reply, result, cancel, dead, limits jetstream.Stream

	executors, contracts jetstream.KeyValue
	created              time.Time // of the request stream
}

// Names of streams and buckets, behind the prefix.
const (
	streamExec   = "EXEC"
	streamReply  = "REPLY"
	streamResult = "RESULT"
	streamCancel = "CANCEL"
	streamDead   = "DEAD"
	streamLimits = "LIMITS"

	bucketExecutors = "EXECUTORS"
	bucketContracts = "CONTRACTS"
)

// Declared is what Declare, Provision or Inspect found or did about one stream, bucket or consumer.
type Declared struct {
	Kind string `json:"kind"` // stream, bucket, consumer
	Name string `json:"name"`
	Did  string `json:"did"`            // one of the constants below
	What string `json:"what,omitempty"` // the settings that differ, as "max_age is 1h0m0s, configured is 24h0m0s"
}

// What was found or done.
const (
	DidNothing = "ok"      // it is as it is to be
	DidMake    = "made"    // it was missing
	DidUpdate  = "updated" // it had other settings; by Provision
	DidMiss    = "missing" // by Inspect
	DidDiffer  = "differs" // it has other settings and works with them; Provision would change them
)

// mode is what may be done about what is not as configured.
type mode int

const (
	look   mode = iota // nothing
	mend               // make what is missing
	update             // and change what is different
)

// Declare makes the streams, buckets and consumers that are missing and checks those that are there. It changes
// nothing that exists, so that executors of two versions do not fight; Provision does.
//
// A cluster that has no leader just now, or a server that goes away meanwhile, is waited for as one that is not there yet:
// up to config.ConnectWait.
func (b *Bus) Declare(ctx context.Context, engines []string) error {
	return b.patiently(ctx, func() error {
		_, err := b.declare(ctx, engines, mend)
		return err
	})
}

// patiently tries what the start needs again for as long as the start may wait for a server, while waiting can help.
func (b *Bus) patiently(ctx context.Context, try func() error) error {
	deadline := time.Now().Add(time.Duration(b.config.ConnectWait))
	for told := false; ; told = true {
		err := try()
		if err == nil || !passing(err) || b.denied.recent() != "" || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		if !told {
			b.log.Warn().Err(err).Msg("NATS cannot do now what the start needs; trying again")
		}
		if err := b.pause(ctx); err != nil {
			return err
		}
	}
}

// passing reports whether a question of the start that failed so may be answered a little later.
func passing(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode == 10008 || api.ErrorCode == 10005 // no leader just now; too few servers of the cluster are there yet
	}
	for _, away := range []error{context.DeadlineExceeded, nats.ErrTimeout, nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting, nats.ErrDisconnected} {
		if errors.Is(err, away) {
			return true
		}
	}
	return false
}

// Provision makes what is missing and brings what exists to the present configuration. Also with an error it returns what
// was done before.
func (b *Bus) Provision(ctx context.Context, engines []string) ([]Declared, error) {
	return b.declare(ctx, engines, update)
}

// Inspect only looks.
func (b *Bus) Inspect(ctx context.Context, engines []string) ([]Declared, error) {
	return b.declare(ctx, engines, look)
}

func (b *Bus) declare(ctx context.Context, engines []string, may mode) (list []Declared, err error) {
	if _, err := b.js.AccountInfo(ctx); err != nil {
		if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) || errors.Is(err, nats.ErrNoResponders) {
			return nil, b.explain(fmt.Errorf("NATS at %s has no JetStream: start nats-server with -js, or enable it for this account (%w)", b.URL(), err))
		}
		return nil, b.explain(fmt.Errorf("ask NATS about JetStream: %w", err))
	}
	for _, one := range []struct {
		config jetstream.StreamConfig
		into   *jetstream.Stream
	}{
		{b.execStream(), &b.streams.exec},
		{b.stream(streamReply, b.config.Streams.ReplyAge, b.config.Streams.ReplyBytes, "*.status", "*.output"), &b.streams.reply},
		{b.stream(streamResult, b.config.Streams.ResultAge, b.config.Streams.ResultBytes, "*.result"), &b.streams.result},
		{b.cancelStream(), &b.streams.cancel},
		{b.stream(streamDead, b.config.Streams.DeadAge, b.config.Streams.DeadBytes), &b.streams.dead},
		{b.limitsStream(), &b.streams.limits},
	} {
		d := Declared{Kind: "stream", Name: one.config.Name}
		if *one.into, err = b.ensureStream(ctx, one.config, may, &d); err != nil {
			return list, b.explain(fmt.Errorf("stream %s: %w", d.Name, err))
		}
		list = append(list, d)
	}
	if b.streams.exec != nil {
		b.streams.created = b.streams.exec.CachedInfo().Created
	}
	for _, one := range []struct {
		config jetstream.KeyValueConfig
		into   *jetstream.KeyValue
	}{
		{b.executorsBucket(), &b.streams.executors},
		{b.contractsBucket(), &b.streams.contracts},
	} {
		d := Declared{Kind: "bucket", Name: one.config.Bucket}
		if *one.into, err = b.ensureBucket(ctx, one.config, may, &d); err != nil {
			return list, b.explain(fmt.Errorf("bucket %s: %w", d.Name, err))
		}
		list = append(list, d)
	}
	for _, engine := range engines {
		for _, priority := range contracts.Priorities {
			d := Declared{Kind: "consumer", Name: b.subjects.Consumer(engine, priority)}
			if _, err := b.ensureConsumer(ctx, engine, priority, may, &d); err != nil {
				return list, b.explain(fmt.Errorf("consumer %s of stream %s: %w", d.Name, b.subjects.Name(streamExec), err))
			}
			list = append(list, d)
		}
	}
	return list, nil
}

// executorsBucket holds presence. In memory: what it says is older than it may be after any restart.
func (b *Bus) executorsBucket() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: b.subjects.Name(bucketExecutors), Description: "who is there and what they serve", Storage: jetstream.MemoryStorage,
		TTL: crowdFactor * presenceTTL, LimitMarkerTTL: presenceTTL, Replicas: b.config.Replicas,
	}
}

// contractsBucket is the registry of contracts. Its history lets an executor that starts find what was right before somebody
// wrote what is wrong, and an operator what was there.
func (b *Bus) contractsBucket() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket: b.subjects.Name(bucketContracts), Description: "contracts that all executors know; for operators to write", Storage: jetstream.FileStorage,
		History: contractsHistory, MaxBytes: contractsBytes, Replicas: b.config.Replicas,
	}
}

// execStream is the queue of requests. A full queue refuses new ones, so that their publishers know.
func (b *Bus) execStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: b.subjects.Name(streamExec), Description: "requests waiting for an executor", Subjects: b.subjects.ExecAll(),
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: b.config.Replicas,
		Discard: jetstream.DiscardNew, DiscardNewPerSubject: true,
		MaxMsgsPerSubject: b.config.Streams.QueueMessages, MaxBytes: int64(b.config.Streams.QueueBytes),
		MaxMsgSize: int32(b.maxRequest() + republished),
		Duplicates: requestDuplicates, AllowDirect: true,
		RePublish: &jetstream.RePublish{Source: b.subjects.Prefix() + ".exec.>", Destination: b.subjects.Prefix() + ".bell.>", HeadersOnly: true},
	}
}

// republished is how much larger a request may get by the headers of those who pass it on, in bytes.
const republished = 8 << 10

// maxRequest is the largest request that is stored, in bytes with headers.
func (b *Bus) maxRequest() int64 { return contracts.MaxRequest(b.nc.MaxPayload()) }

// stream is one that keeps what it is told for a time, and forgets the oldest first when it is full.
func (b *Bus) stream(suffix string, age contracts.Duration, bytes contracts.Size, leaves ...string) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name: b.subjects.Name(suffix), Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Replicas: b.config.Replicas,
		Discard: jetstream.DiscardOld, MaxAge: time.Duration(age), MaxBytes: int64(bytes), Duplicates: replyDuplicates, AllowDirect: true,
	}
	switch suffix {
	case streamReply:
		c.Description = "status and output of runs"
	case streamResult:
		c.Description = "one result a run"
	case streamDead:
		c.Description = "requests that were given up on"
		c.Subjects = []string{b.subjects.Dead("*")}
	}
	for _, leaf := range leaves {
		c.Subjects = append(c.Subjects, b.subjects.Reply(leaf))
	}
	c.Duplicates = min(c.Duplicates, c.MaxAge)
	return c
}

func (b *Bus) cancelStream() jetstream.StreamConfig {
	c := b.stream(streamCancel, contracts.Duration(cancelAge), cancelBytes)
	c.Description, c.Subjects, c.MaxMsgsPerSubject = "asks to stop a run", []string{b.subjects.Cancel("*")}, 1
	return c
}

// limitsStream has a message for every place of a limit that is taken. It ends by itself when its holder has died.
func (b *Bus) limitsStream() jetstream.StreamConfig {
	c := b.stream(streamLimits, contracts.Duration(limitAge), limitBytes)
	c.Description, c.Subjects, c.MaxMsgsPerSubject, c.AllowMsgTTL = "places of limits that are taken", []string{b.subjects.Limit("*", "*")}, 1, true
	return c
}

func (b *Bus) ensureStream(ctx context.Context, config jetstream.StreamConfig, may mode, d *Declared) (jetstream.Stream, error) {
	stream, err := b.js.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if may == look {
			d.Did = DidMiss
			return nil, nil
		}
		stream, err = b.js.CreateStream(ctx, config)
		if err == nil {
			b.log.Info().Str("stream", config.Name).Msg("made a stream")
			d.Did = DidMake
			return stream, nil
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another instance was faster
			stream, err = b.js.Stream(ctx, config.Name)
		}
	}
	if err != nil {
		return nil, advise(err)
	}
	is := stream.CachedInfo().Config
	slices.Sort(is.Subjects)
	want := slices.Sorted(slices.Values(config.Subjects))
	if !slices.Equal(is.Subjects, want) || is.Retention != config.Retention {
		return nil, fmt.Errorf("exists, but it is not ours: it has the subjects %s where %s are needed; give this fleet another nats.subject_prefix, or remove that stream",
			strings.Join(is.Subjects, ", "), strings.Join(want, ", "))
	}
	if !is.AllowDirect && may != update {
		return nil, errors.New("exists without allow_direct, which reading results needs; run `executor provision`")
	}
	d.differ(streamSettings(is), streamSettings(config))
	if may == update && d.Did == DidDiffer {
		if stream, err = b.js.UpdateStream(ctx, config); err != nil {
			return nil, advise(err)
		}
		d.Did = DidUpdate
	}
	return stream, nil
}

// setting is one that an operator can change. The server says -1 for no limit where we say 0.
type setting struct {
	name  string
	value any
}

func streamSettings(c jetstream.StreamConfig) []setting {
	return []setting{
		{"max_age", c.MaxAge}, {"max_bytes", max(0, c.MaxBytes)}, {"max_msgs_per_subject", max(0, c.MaxMsgsPerSubject)}, {"max_msg_size", max(0, c.MaxMsgSize)},
		{"replicas", c.Replicas}, {"duplicate_window", c.Duplicates}, {"discard", c.Discard}, {"allow_direct", c.AllowDirect},
		{"republish", republish(c.RePublish)},
	}
}

func republish(r *jetstream.RePublish) string {
	if r == nil {
		return "none"
	}
	return r.Source + " to " + r.Destination
}

// differ notes which settings differ.
func (d *Declared) differ(is, want []setting) {
	var differ []string
	for i := range is {
		if is[i].value != want[i].value {
			differ = append(differ, fmt.Sprintf("%s is %v, configured is %v", is[i].name, is[i].value, want[i].value))
		}
	}
	d.Did, d.What = DidNothing, strings.Join(differ, "; ")
	if len(differ) > 0 {
		d.Did = DidDiffer
	}
}

// advise adds what to do to errors of the server that an operator can mend.
func advise(err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return err
	}
	switch api.ErrorCode {
	case 10047, 10028, 10023: // insufficient storage, memory, resources
		return fmt.Errorf("%w: the server has too little room for the configured sizes; lower nats.streams.*_bytes or raise the server's max_file_store", err)
	case 10074: // replicas > 1 not supported in non-clustered mode
		return fmt.Errorf("%w: set nats.replicas to 1 for a single server", err)
	case 10065: // subjects overlap with an existing stream
		return fmt.Errorf("%w: another stream of this account has our subjects; give this fleet another nats.subject_prefix", err)
	}
	return err
}

func (b *Bus) ensureBucket(ctx context.Context, config jetstream.KeyValueConfig, may mode, d *Declared) (jetstream.KeyValue, error) {
	bucket, err := b.js.KeyValue(ctx, config.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		if may == look {
			d.Did = DidMiss
			return nil, nil
		}
		d.Did = DidMake
		bucket, err = b.js.CreateKeyValue(ctx, config)
		if err == nil {
			return bucket, nil
		}
		if errors.Is(err, jetstream.ErrBucketExists) || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			bucket, err = b.js.KeyValue(ctx, config.Bucket)
		}
	}
	if err != nil {
		return nil, advise(err)
	}
	status, err := bucket.Status(ctx)
	if err != nil {
		return nil, err
	}
	settings := func(c jetstream.KeyValueConfig) []setting {
		return []setting{{"ttl", c.TTL}, {"limit_marker_ttl", c.LimitMarkerTTL}, {"history", max(1, c.History)}, {"max_bytes", max(0, c.MaxBytes)}, {"replicas", c.Replicas}}
	}
	d.differ(settings(status.Config()), settings(config))
	if may == update && d.Did == DidDiffer {
		if bucket, err = b.js.UpdateKeyValue(ctx, config); err != nil {
			return nil, advise(err)
		}
		d.Did = DidUpdate
	}
	return bucket, nil
}

// ensureConsumer returns the consumer that all instances share for one queue.
func (b *Bus) ensureConsumer(ctx context.Context, engine, priority string, may mode, d *Declared) (jetstream.Consumer, error) {
	name, idle := b.consumerOf(engine, priority)
	config := jetstream.ConsumerConfig{
		Durable: name, InactiveThreshold: idle, FilterSubject: b.subjects.Exec(engine, priority),
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Duration(b.config.AckWait),
		MaxDeliver: -1, MaxAckPending: -1, MaxWaiting: 4096, DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	if b.streams.exec == nil { // an inspection found none
		d.Did = DidMiss
		return nil, nil
	}
	consumer, err := b.streams.exec.Consumer(ctx, config.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		if may == look {
			d.Did = DidMiss
			return nil, nil
		}
		d.Did = DidMake
		consumer, err = b.streams.exec.CreateConsumer(ctx, config)
		if err == nil {
			return consumer, nil
		}
		if errors.Is(err, jetstream.ErrConsumerExists) || errors.Is(err, jetstream.ErrConsumerNameAlreadyInUse) {
			consumer, err = b.streams.exec.Consumer(ctx, config.Durable)
		}
	}
	if err != nil {
		return nil, err
	}
	is := consumer.CachedInfo().Config
	if may != update && (is.FilterSubject != config.FilterSubject || is.AckPolicy != config.AckPolicy) {
		return nil, fmt.Errorf("exists, but it is not ours: it reads %q where %q is needed; remove it, or run `executor provision`", is.FilterSubject, config.FilterSubject)
	}
	settings := func(c jetstream.ConsumerConfig) []setting {
		return []setting{{"filter_subject", c.FilterSubject}, {"ack_wait", c.AckWait}, {"max_deliver", c.MaxDeliver}, {"max_ack_pending", c.MaxAckPending}}
	}
	d.differ(settings(is), settings(config))
	if may == update && d.Did == DidDiffer {
		if consumer, err = b.streams.exec.UpdateConsumer(ctx, config); err != nil {
			return nil, err
		}
		d.Did = DidUpdate
	}
	return consumer, nil
}
