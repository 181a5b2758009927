package contracts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Request is one ask to run a contract: either one that the executors know by name, or an inline one.
type Request struct {
	ID           string            `json:"id,omitempty"` // idempotency key and capability; absent: derived from the place in the queue
	Tool         string            `json:"tool,omitempty"`
	Version      string            `json:"version,omitempty"`
	Contract     *Contract         `json:"contract,omitempty"`
	Args         map[string]any    `json:"args,omitempty"`    // numbers are json.Number
	Context      map[string]any    `json:"context,omitempty"` //
	Stdin        string            `json:"stdin,omitempty"`
	StdinBase64  []byte            `json:"stdin_base64,omitempty"`
	Timeout      Duration          `json:"timeout,omitempty"`       // of one attempt; 0: the contract's
	Deadline     time.Time         `json:"deadline,omitzero"`       // no start after it, and a run ends at it
	QueueTimeout Duration          `json:"queue_timeout,omitempty"` // longest wait in the queue; 0: no bound
	Priority     string            `json:"priority,omitempty"`      // for the front door; in the queue the subject says it
	Fallback     []string          `json:"fallback,omitempty"`      // engines to try when the contract's cannot take it
	ReplyTo      string            `json:"reply_to,omitempty"`      // subject for copies of the events
	Labels       map[string]string `json:"labels,omitempty"`
}

// Priorities of requests.
const (
	PriorityHigh   = "high"
	PriorityNormal = "normal"
	PriorityLow    = "low"
)

// Priorities are all of them, the first first.
var Priorities = []string{PriorityHigh, PriorityNormal, PriorityLow}

// MaxLabels is how many labels a request may have.
const MaxLabels = 16

// Bounds of a request.
const (
	maxLabelBytes = 256 // name and value together
	maxReplyTo    = 256
)

var queueID = regexp.MustCompile(`^q[0-9]`)

// IsID reports whether s can be an id: of a request as of a run.
func IsID(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
	return s != "" && len(s) <= 64 && strings.Trim(s, letters) == ""
}

// headroom is what a stored request leaves free below the server's max_payload, in bytes, so that it can be republished with
// more headers.
const headroom = 32 << 10

// MaxRequest is the largest request that is taken, in bytes, where the server takes messages of maxPayload bytes.
func MaxRequest(maxPayload int64) int64 { return max(maxPayload-headroom, maxPayload/2) }

// TooLarge is the answer to a request of size bytes that is larger than most.
func TooLarge(size int, most int64) *Error {
	return Errorf(InvalidRequest, "the request has %d bytes; this server takes %d at most: hand large input over by a file or an object store", size, most)
}

// CheckID returns what is wrong with an id that an agent chose, or nil.
func CheckID(id string) error {
	switch {
	case !IsID(id):
		return fmt.Errorf("%s is not an id: 1 to 64 of the characters A-Z a-z 0-9 _ and -", quote(id))
	case queueID.MatchString(id):
		return fmt.Errorf("%s begins with q and a digit, as ids do that executors make; choose another", quote(id))
	}
	return nil
}

// QueueID is the id of a request that came without one: created is when its stream was, seq its place in it.
func QueueID(created time.Time, seq uint64) string {
	return fmt.Sprintf("q%d-%d", created.Unix(), seq)
}

// CheckSubject returns what is wrong with a subject to publish to, or nil.
func CheckSubject(subject string) error {
	switch {
	case subject == "" || len(subject) > maxReplyTo:
		return fmt.Errorf("has %d bytes; a subject has 1 to %d", len(subject), maxReplyTo)
	case !utf8.ValidString(subject) || strings.ContainsFunc(subject, notGraphic):
		return fmt.Errorf("%s holds white space or control characters", quote(subject))
	case strings.HasPrefix(subject, ".") || strings.HasSuffix(subject, ".") || strings.Contains(subject, ".."):
		return fmt.Errorf("%s has an empty token", quote(subject))
	}
	for token := range strings.SplitSeq(subject, ".") {
		if token == "*" || token == ">" {
			return fmt.Errorf("%s has a wildcard; it must name one subject", quote(subject))
		}
	}
	return nil
}

// DecodeRequest reads and checks a request, strictly. With an error, which has the code invalid_request, the request
// that it returns still has the ID and ReplyTo if the text is JSON and they are good, so that the asker can be told.
func DecodeRequest(text []byte) (*Request, error) {
	r := &Request{}
	err := r.decode(text)
	if err != nil {
		keys := topLevel(text)
		if r.ID = keys["id"]; CheckID(r.ID) != nil {
			r.ID = ""
		}
		if r.ReplyTo = keys["reply_to"]; CheckSubject(r.ReplyTo) != nil {
			r.ReplyTo = ""
		}
		return r, err
	}
	return r, nil
}

func (r *Request) decode(text []byte) error {
	n, err := ParseJSON("", text)
	if err != nil {
		return Errorf(InvalidRequest, "the request %s", first(err))
	}
	if n.Kind != yaml.MappingNode {
		return Errorf(InvalidRequest, "the request is %s; it must be a JSON object", describe(n))
	}
	var d decoder
	d.into(n, r, "")
	r.check(&d, n)
	problems := d.found()
	if len(problems) == 0 {
		return nil
	}
	messages := make([]string, 0, 4)
	for i, p := range problems {
		if i == 3 {
			messages = append(messages, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		messages = append(messages, p.inline())
	}
	return Errorf(InvalidRequest, "%s", strings.Join(messages, "; "))
}

// topLevel returns the texts of a JSON object, without those of keys that are given twice: nobody knows which was meant.
// It reads more than ParseJSON: what is too deep or no UTF-8 below does not matter to it.
func topLevel(text []byte) map[string]string {
	found := map[string]string{}
	if !json.Valid(text) {
		return found
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if start, _ := decoder.Token(); start != json.Delim('{') {
		return found
	}
	seen := map[string]bool{}
	for decoder.More() {
		token, _ := decoder.Token()
		key, _ := token.(string)
		var value json.RawMessage
		if decoder.Decode(&value) != nil {
			return nil
		}
		var text string
		if json.Unmarshal(value, &text) == nil && !seen[key] {
			found[key] = text
		} else {
			delete(found, key)
		}
		seen[key] = true
	}
	return found
}

// first is the first problem of a text that could not be parsed, in one line.
func first(err error) string {
	if problems := (Problems)(nil); errors.As(err, &problems) {
		return problems[0].at()
	}
	return err.Error()
}

// at is the problem as the end of a sentence that begins with what the document is.
func (p Problem) at() string {
	if p.Line == 0 {
		return p.Message
	}
	return fmt.Sprintf("%s (line %d, column %d)", p.Message, p.Line, p.Column)
}

// inline names the key before the place: in one line of JSON the key says more.
func (p Problem) inline() string {
	if p.Path == "" {
		return "the request " + p.at()
	}
	return p.Path + ": " + p.Message
}

// check finds what is wrong beyond the types.
func (r *Request) check(d *decoder, n *yaml.Node) {
	bad := d.checker(n, "")
	has := func(key string) bool { return child(n, key) != nil }

	if has("id") {
		if err := CheckID(r.ID); err != nil {
			bad("id", "%s", err)
		}
	}
	switch {
	case has("tool") && has("contract"):
		bad("contract", "is given beside tool; keep one: tool names a contract that the executors know, contract is one of your own")
	case !has("tool") && !has("contract"):
		bad("tool", "is missing; name the tool to run")
	case has("tool") && !toolName.MatchString(r.Tool):
		bad("tool", "%s is not a tool name: letters, digits, '_' and '-', 64 at most", quote(r.Tool))
	}
	if has("version") {
		switch {
		case !has("tool"):
			bad("version", "belongs to tool; a contract has its own")
		case !toolVersion.MatchString(r.Version):
			bad("version", "%s is not a version: letters, digits, '.', '_' and '-', 64 at most", quote(r.Version))
		}
	}
	if has("stdin") && has("stdin_base64") {
		bad("stdin_base64", "is given beside stdin; keep one")
	}
	if has("timeout") && r.Timeout <= 0 {
		bad("timeout", "must be above 0 seconds; leave it out for the contract's")
	}
	if has("queue_timeout") && r.QueueTimeout <= 0 {
		bad("queue_timeout", "must be above 0 seconds; leave it out for no bound")
	}
	d.oneOf(n, "", "priority", r.Priority, Priorities...)
	for i := range r.Fallback {
		name, at := engineName(r.Fallback[i]), element("fallback", i)
		r.Fallback[i] = name
		if where := child(n, "fallback").Content[i]; d.flawed(at) {
			continue
		} else if d.knownEngine(where, at, name); slices.Contains(r.Fallback[:i], name) {
			d.problem(where, at, "%q is there already; an engine is tried once", name)
		}
	}
	if has("reply_to") {
		if err := CheckSubject(r.ReplyTo); err != nil {
			bad("reply_to", "%s", err)
		}
	}
	if len(r.Labels) > MaxLabels {
		bad("labels", "has %d labels; %d at most", len(r.Labels), MaxLabels)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Labels)) {
		if len(name)+len(r.Labels[name]) > maxLabelBytes {
			bad("labels", "%s has more than %d bytes, name and value together", quote(name), maxLabelBytes)
		}
	}
}

// Input is what the tool reads: the request's stdin, else the contract's.
func (r *Request) Input(spec *CommonSpec) []byte {
	switch {
	case len(r.StdinBase64) > 0:
		return r.StdinBase64
	case r.Stdin != "":
		return []byte(r.Stdin)
	}
	return []byte(spec.Stdin)
}
