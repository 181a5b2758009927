package bus

import (
	"time"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Config is the section nats of the configuration.
type Config struct {
	// URLs of the servers, as nats://host:4222, tls:// or ws://.
	URLs []string `json:"urls"`

	// Context is a context of the nats CLI, by name or as the absolute path of its file; it says server and credentials
	// instead of the keys above and below. For commands, which take it as --context.
	Context string `json:"-"`

	// Inbox is the prefix of the inbox of a command, where its user may have no other one; it goes before InboxPrefix
	// and that of a context. Executors have none.
	Inbox string `json:"-"`

	// One way to say who we are; all empty: none.
	Creds    string `json:"creds"` // file with a user JWT and its key
	NKey     string `json:"nkey"`  // file with an nkey seed
	User     string `json:"user"`
	Password string `json:"password"`
	Token    string `json:"token"`
	TLS      TLS    `json:"tls"`

	SubjectPrefix string             `json:"subject_prefix"`
	InboxPrefix   string             `json:"inbox_prefix"`    // of our own replies; nobody's reply_to may be below it
	ConnectWait   contracts.Duration `json:"connect_timeout"` // how long the start waits for a server
	Replicas      int                `json:"replicas"`        // of all streams and buckets
	AckWait       contracts.Duration `json:"ack_wait"`        // how long after an executor's death its requests are taken by others

	Streams StreamLimits `json:"streams"`
}

// TLS are files in PEM form.
type TLS struct {
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// StreamLimits bound what is kept.
type StreamLimits struct {
	QueueMessages int64              `json:"queue_messages"` // requests waiting in one queue; beyond, publishers get an error
	QueueBytes    contracts.Size     `json:"queue_bytes"`    // requests waiting in all
	ReplyAge      contracts.Duration `json:"reply_age"`      // status and output
	ReplyBytes    contracts.Size     `json:"reply_bytes"`
	ResultAge     contracts.Duration `json:"result_age"`
	ResultBytes   contracts.Size     `json:"result_bytes"`
	DeadAge       contracts.Duration `json:"dead_age"`
	DeadBytes     contracts.Size     `json:"dead_bytes"`
}

// DefaultConfig is what holds where the configuration says nothing.
func DefaultConfig() Config {
	return Config{
		URLs:          []string{"nats://127.0.0.1:4222"},
		SubjectPrefix: contracts.DefaultPrefix,
		InboxPrefix:   "_EXECUTOR",
		ConnectWait:   contracts.Seconds(30),
		Replicas:      1,
		AckWait:       contracts.Seconds(15),
		Streams: StreamLimits{
			QueueMessages: 1_000_000, QueueBytes: 2 << 30,
			ReplyAge: hours(24), ReplyBytes: 4 << 30,
			ResultAge: hours(7 * 24), ResultBytes: 1 << 30,
			DeadAge: hours(30 * 24), DeadBytes: 256 << 20,
		},
	}
}

func hours(n int) contracts.Duration { return contracts.Duration(n) * contracts.Duration(time.Hour) }

// Limits that no configuration changes.
const (
	// cancelAge is how long an ask to stop is remembered.
	cancelAge   = 24 * time.Hour
	cancelBytes = 64 << 20
	// contractsHistory is how many values of a registered contract are kept, the last one counted.
	contractsHistory = 5
	contractsBytes   = 64 << 20
	// limitAge ends places of limits whatever their TTL; they are renewed far more often.
	limitAge   = 24 * time.Hour
	limitBytes = 64 << 20
	// requestDuplicates is how long the publish of a request is recognised when it comes again.
	requestDuplicates = 10 * time.Minute
	// replyDuplicates is the same for output and events: longer than a message can be under way on a connection that
	// was lost. Longer would cost memory in the server for every chunk.
	replyDuplicates = time.Minute
	// requestTimeout is how long we wait for the server's answer to one question.
	requestTimeout = 5 * time.Second
)
