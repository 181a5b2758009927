package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/praxis-sdk/executor/internal/contracts"
	"github.com/praxis-sdk/executor/schemas"
)

// The AsyncAPI document is compared with everything that is said in an account while executors do all that they can do:
// every message must be one message of one channel, with headers and fields that the document names, and every message
// of every channel must have been said.

// notSaid are parts of the document that this traffic has none of, with the reason. What is said after all has to go.
var notSaid = map[string]string{
	"progress": "the local engine has nothing to prepare that takes time; engines with images tell of it",
}

// excuse is the entry of notSaid that a part of the document falls under, or "".
func excuse(part string) string {
	for name := range notSaid {
		if strings.HasSuffix(part, " "+name) || strings.Contains(part, "/"+name) {
			return name
		}
	}
	return ""
}

// ofNATS are the subjects that the document leaves to NATS.
var ofNATS = regexp.MustCompile(`^(\$JS|_EXECUTOR)\.`)

func TestAsyncAPIAgainstTraffic(t *testing.T) {
	said := makeTraffic(t)
	document := readAsyncAPI(t)
	seen, problems := document.compare(said)
	for _, problem := range problems {
		t.Error(problem)
	}
	excused := map[string]bool{}
	for _, part := range document.parts() {
		switch why := excuse(part); {
		case why != "":
			excused[why] = true
			if seen[part] > 0 {
				t.Errorf("%s was said; take %s out of notSaid", part, why)
			}
		case seen[part] == 0:
			t.Errorf("the document has %s, and nothing of that kind was said", part)
		}
	}
	for name := range notSaid {
		if !excused[name] {
			t.Errorf("the document has no %s; take it out of notSaid", name)
		}
	}
	t.Logf("%d messages, %d parts of the document", len(said.messages), len(seen))
	if !t.Failed() {
		spoil(t, document, said, seen)
	}
}

// spoil takes parts out of the document, one at a time: each that the traffic has must be missed.
func spoil(t *testing.T, document *apiDocument, said *traffic, seen map[string]int) {
	for _, part := range document.parts() {
		if seen[part] == 0 || strings.Contains(part, "header ") {
			continue
		}
		document.without = part
		if _, problems := document.compare(said); len(problems) == 0 {
			t.Errorf("without %s the document fits as well", part)
		}
	}
	document.without = ""
	for name, c := range document.channels {
		delete(document.channels, name)
		if _, problems := document.compare(said); len(problems) == 0 {
			t.Errorf("without the channel %s the document fits as well", name)
		}
		document.channels[name] = c
	}
	// Headers and fields: a message keeps what it is, and has something that nothing names.
	noticed := map[string]bool{}
	for id, tree := range document.trees {
		if id == schemas.ID("configuration") {
			continue // is not said
		}
		document.eachProperty(tree, "", func(at string, properties map[string]any, name string) {
			is := properties[name]
			delete(properties, name)
			for _, fit := range document.fits {
				if fit.reason == "" && len(document.strangers(fit)) > 0 {
					noticed[strings.TrimSuffix(id[strings.LastIndexByte(id, '/')+1:], ".schema.json")+at+"/"+name] = true
					break
				}
			}
			properties[name] = is
		})
	}
	for _, name := range []string{
		"asyncapi.yaml/components/schemas/runHeaders/Tools-Executor", "asyncapi.yaml/components/schemas/runHeaders/traceparent",
		"asyncapi.yaml/components/schemas/outputHeaders/allOf/1/Tools-Seq", "asyncapi.yaml/components/schemas/outputHeaders/allOf/1/Nats-Msg-Id",
		"asyncapi.yaml/components/schemas/resultHeaders/Nats-Service-Error", "asyncapi.yaml/components/schemas/requestHeaders/Tools-Reply-To",
		"asyncapi.yaml/components/schemas/deadHeaders/allOf/1/Tools-Dead", "asyncapi.yaml/components/schemas/presenceHeaders/Nats-TTL",
		"asyncapi.yaml/components/schemas/stored/duplicate", "asyncapi.yaml/components/schemas/endpoint/queue_group",
		"event/$defs/event/exec_seq", "event/$defs/started/queued_ms", "event/$defs/retry/reason", "event/$defs/finished/status",
		"result/signal", "result/$defs/usage/cpu_ms", "result/truncated", "result/stdout_base64", "presence/busy", "presence/$defs/engine/tier",
		"dead-letter/delivered", "discovery/engines", "discovery/sources", "discovery/$defs/refusal/reason", "declarations/$defs/openai/function", "declarations/$defs/property/default",
		"request/labels", "request/stdin_base64", "follow/skip_output", "discover/as",
	} {
		if !noticed[name] {
			t.Errorf("without %s the document fits as well", name)
		}
	}
	t.Logf("%d headers and fields were said that would be missed", len(noticed))
}

// apiDocument is the document, with the schemas that it refers to.
type apiDocument struct {
	trees    map[string]any // by $id
	schemas  *jsonschema.Compiler
	channels map[string]*apiChannel
	replies  map[string][]string // by operation that answers, and "copy": messages of the channel inbox
	fits     map[fitKey]fit
	asked    map[string]string // whose answers come to which subject
	without  string            // a part that is taken for missing
}

type apiChannel struct {
	name      string
	address   *regexp.Regexp // nil: not known beforehand
	messages  map[string]*apiMessage
	operation string // that receives from it and answers
}

type apiMessage struct {
	name             string
	isJSON           bool
	headers, payload *apiSchema // headers may be nil: none
}

type apiSchema struct {
	at       place
	compiled *jsonschema.Schema
}

// place is a part of a tree.
type place struct {
	id   string
	node any
}

const asyncID = "https://github.com/praxis-sdk/executor/schemas/asyncapi.yaml"

func readAsyncAPI(t *testing.T) *apiDocument {
	t.Helper()
	d := &apiDocument{trees: map[string]any{}, schemas: jsonschema.NewCompiler(), channels: map[string]*apiChannel{}, replies: map[string][]string{}, fits: map[fitKey]fit{}}
	d.schemas.UseLoader(noLoader{})
	d.schemas.DefaultDraft(jsonschema.Draft7) // which AsyncAPI builds on; our schemas name theirs
	d.schemas.AssertFormat()
	var fromYAML any
	if err := yaml.Unmarshal(schemas.AsyncAPI(), &fromYAML); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	d.add(t, asyncID, text)
	for _, name := range schemas.Names() {
		text, err := schemas.Text(name)
		if err != nil {
			t.Fatal(err)
		}
		d.add(t, schemas.ID(name), text)
	}
	root := place{asyncID, d.trees[asyncID]}
	for name := range d.child(root, "channels").node.(map[string]any) {
		at := d.child(root, "channels", name)
		c := &apiChannel{name: name, messages: map[string]*apiMessage{}}
		if address, ok := d.child(at, "address").node.(string); ok {
			c.address = d.pattern(at, address)
		}
		for message := range d.child(at, "messages").node.(map[string]any) {
			c.messages[message] = d.message(t, d.child(at, "messages", message))
		}
		d.channels[name] = c
	}
	for name := range d.child(root, "operations").node.(map[string]any) {
		at := d.child(root, "operations", name)
		list, answers := d.child(at, "reply", "messages").node.([]any)
		if answers {
			d.channels[referred(d.raw(at, "channel"))].operation = name
		} else if name == "copy" {
			list = d.child(at, "messages").node.([]any)
		}
		for _, one := range list {
			d.replies[name] = append(d.replies[name], referred(one))
		}
	}
	return d
}

type noLoader struct{}

func (noLoader) Load(url string) (any, error) { return nil, fmt.Errorf("%s is not there", url) }

func (d *apiDocument) add(t *testing.T, id string, text []byte) {
	t.Helper()
	for _, add := range []func(tree any) error{
		func(tree any) error { d.trees[id] = tree; return nil }, // to be spoiled
		func(tree any) error { return d.schemas.AddResource(id, tree) },
	} {
		tree, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err == nil {
			err = add(tree)
		}
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
}

// raw is what is below a place, references as they are.
func (d *apiDocument) raw(p place, key string) any {
	m, _ := p.node.(map[string]any)
	return m[key]
}

// child is what is below a place, references followed.
func (d *apiDocument) child(p place, path ...string) place {
	for _, key := range path {
		p = d.follow(place{p.id, d.raw(p, key)})
	}
	return p
}

func (d *apiDocument) follow(p place) place {
	ref, ok := d.raw(p, "$ref").(string)
	if !ok {
		return p
	}
	id, pointer, _ := strings.Cut(ref, "#")
	if id == "" {
		id = p.id
	}
	p = place{id, d.trees[id]}
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if token != "" {
			p.node = d.raw(p, token)
		}
	}
	return p
}

// referred is the last token of a reference.
func referred(v any) string {
	ref, _ := v.(map[string]any)["$ref"].(string)
	return ref[strings.LastIndexByte(ref, '/')+1:]
}

// pattern matches the subjects of a channel.
func (d *apiDocument) pattern(channel place, address string) *regexp.Regexp {
	var tokens []string
	for token := range strings.SplitSeq(address, ".") {
		if name, ok := strings.CutPrefix(token, "{"); ok {
			token = "[^.]+"
			if values, ok := d.child(channel, "parameters", strings.TrimSuffix(name, "}"), "enum").node.([]any); ok {
				token = "(" + strings.Trim(fmt.Sprint(values), "[]") + ")"
				token = strings.ReplaceAll(token, " ", "|")
			}
		} else {
			token = regexp.QuoteMeta(token)
		}
		tokens = append(tokens, token)
	}
	return regexp.MustCompile("^" + strings.Join(tokens, `\.`) + "$")
}

func (d *apiDocument) message(t *testing.T, at place) *apiMessage {
	t.Helper()
	m := &apiMessage{name: d.child(at, "name").node.(string)}
	kind, given := d.child(at, "contentType").node.(string)
	m.isJSON = !given || kind == "application/json"
	schema := func(key string) *apiSchema {
		if d.raw(at, key) == nil {
			return nil
		}
		compiled, err := d.schemas.Compile(asyncID + "#/components/messages/" + m.name + "/" + key)
		if err != nil {
			t.Fatal(err)
		}
		return &apiSchema{place{at.id, d.raw(at, key)}, compiled}
	}
	m.headers, m.payload = schema("headers"), schema("payload")
	return m
}

// parts are the parts of the document that traffic can show.
func (d *apiDocument) parts() []string {
	parts := map[string]bool{}
	for name, c := range d.channels {
		for kind, m := range c.messages {
			parts[name+"/"+kind] = true
			if m.headers != nil {
				for _, one := range d.expand(m.headers.at, nil) {
					properties, _ := d.raw(one, "properties").(map[string]any)
					for header := range properties {
						parts["/"+m.name+" header "+header] = true
					}
				}
			}
		}
	}
	for operation, list := range d.replies {
		for _, message := range list {
			parts[operation+" answers/"+message] = true
		}
	}
	return slices.Sorted(maps.Keys(parts))
}

// compare finds what the document does not say of a traffic, and counts what it says.
func (d *apiDocument) compare(said *traffic) (seen map[string]int, problems []string) {
	seen = map[string]int{}
	if d.asked == nil {
		d.asked = d.inboxes(said)
	}
	for i, msg := range said.messages {
		describe := func(format string, a ...any) {
			problems = append(problems, fmt.Sprintf("%s %v %.300q: ", msg.Subject, msg.Header, msg.Data)+fmt.Sprintf(format, a...))
		}
		operation, isInbox := d.asked[msg.Subject]
		if ofNATS.MatchString(msg.Subject) || isInbox && operation == "" {
			continue
		}
		c := d.channels["inbox"]
		if !isInbox || c == nil {
			list := d.channelsOf(msg.Subject)
			if len(list) != 1 {
				describe("belongs to %d channels", len(list))
				continue
			}
			c = list[0]
		}
		var fitting, reasons []string
		for name, m := range c.messages {
			if isInbox && (!slices.Contains(d.replies[operation], name) || d.without == operation+" answers/"+name) || d.without == c.name+"/"+name {
				continue
			}
			if reason := d.fit(fitKey{i, m.name}, m, msg); reason == "" {
				fitting = append(fitting, name)
			} else {
				reasons = append(reasons, name+": "+reason)
			}
		}
		if said.wrong[wrongKey(msg.Subject, msg.Data)] {
			if len(fitting) > 0 {
				describe("is wrong, and the document takes it for %q", fitting)
			}
			continue
		}
		if len(fitting) != 1 {
			if kind := msg.Header.Get(contracts.HeaderType) + ": "; kind != ": " && len(fitting) == 0 { // what it says to be is what matters
				reasons = slices.DeleteFunc(reasons, func(reason string) bool { return !strings.HasPrefix(reason, kind) })
			}
			describe("in channel %s %s it is %q; it is not\n  %s", c.name, operation, fitting, strings.Join(reasons, "\n  "))
			continue
		}
		seen[c.name+"/"+fitting[0]]++
		if isInbox {
			seen[operation+" answers/"+fitting[0]]++
		}
		for header := range msg.Header {
			seen["/"+c.messages[fitting[0]].name+" header "+header]++
		}
	}
	return seen, problems
}

func (d *apiDocument) channelsOf(subject string) (list []*apiChannel) {
	for _, c := range d.channels {
		if c.address != nil && c.address.MatchString(subject) {
			list = append(list, c)
		}
	}
	return list
}

// inboxes tells whose answers come to which subject: those of an operation, or "" where NATS itself was asked.
func (d *apiDocument) inboxes(said *traffic) map[string]string {
	answers, copies := map[string]string{}, map[string]string{}
	for _, msg := range said.messages {
		if ofNATS.MatchString(msg.Subject) {
			answers[msg.Reply] = ""
			continue
		}
		for _, c := range d.channelsOf(msg.Subject) {
			if c.operation != "" && msg.Reply != "" && !ofNATS.MatchString(msg.Reply) {
				answers[msg.Reply] = c.operation
			}
		}
		var request struct {
			ReplyTo string `json:"reply_to"`
		}
		json.Unmarshal(msg.Data, &request)
		for _, to := range []string{msg.Header.Get(contracts.HeaderReplyTo), request.ReplyTo} {
			if to != "" {
				copies[to] = "copy"
			}
		}
	}
	delete(answers, "")
	maps.Copy(copies, answers)
	return copies
}

type fitKey struct {
	index   int
	message string
}

type fit struct {
	message          *apiMessage
	headers, payload any
	reason           string // why it does not fit; "": it does
}

// fit returns why a message is not of that kind, or "".
func (d *apiDocument) fit(key fitKey, m *apiMessage, msg *nats.Msg) string {
	if known, ok := d.fits[key]; ok {
		return known.reason
	}
	f := d.try(m, msg)
	d.fits[key] = f
	return f.reason
}

func (d *apiDocument) try(m *apiMessage, msg *nats.Msg) fit {
	f := fit{message: m}
	misfit := func(format string, a ...any) fit {
		f.reason = fmt.Sprintf(format, a...)
		return f
	}
	if m.headers == nil && len(msg.Header) > 0 {
		return misfit("has headers")
	}
	if m.headers != nil {
		headers := map[string]any{}
		for name, values := range msg.Header {
			headers[name] = strings.Join(values, " AND ") // there is one of each
		}
		f.headers = headers
		if err := m.headers.compiled.Validate(f.headers); err != nil {
			return misfit("headers: %v", err)
		}
	}
	f.payload = string(msg.Data)
	if m.isJSON {
		var err error
		if f.payload, err = jsonschema.UnmarshalJSON(bytes.NewReader(msg.Data)); err != nil {
			return misfit("payload: %v", err)
		}
	}
	if err := m.payload.compiled.Validate(f.payload); err != nil {
		return misfit("payload: %v", err)
	}
	return misfit("%s", strings.Join(d.strangers(f), "; "))
}

// strangers are the headers and fields of a message that the document does not name. Its schemas let them pass, as readers
// should.
func (d *apiDocument) strangers(f fit) (found []string) {
	if f.headers != nil {
		found = d.strange("header ", f.headers, []place{f.message.headers.at})
	}
	return append(found, d.strange("", f.payload, []place{f.message.payload.at})...)
}

// expand lists a schema and all that it applies to the same value.
func (d *apiDocument) expand(p place, into []place) []place {
	p = place{p.id, p.node}
	into = append(into, p)
	if d.raw(p, "$ref") != nil {
		into = d.expand(d.follow(p), into)
	}
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := d.raw(p, key).([]any)
		for _, one := range list {
			into = d.expand(place{p.id, one}, into)
		}
	}
	for _, key := range []string{"if", "then", "else"} {
		if one := d.raw(p, key); one != nil {
			into = d.expand(place{p.id, one}, into)
		}
	}
	return into
}

func (d *apiDocument) strange(at string, v any, schemas []place) (found []string) {
	var all []place
	for _, s := range schemas {
		all = d.expand(s, all)
	}
	below := func(keyword, key string) (list []place) {
		for _, p := range all {
			one := d.raw(p, keyword)
			if key != "" {
				m, _ := one.(map[string]any)
				one = m[key]
			}
			if one != nil && one != false {
				list = append(list, place{p.id, one})
			}
		}
		return list
	}
	switch v := v.(type) {
	case map[string]any:
		named := slices.ContainsFunc(all, func(p place) bool { return d.raw(p, "properties") != nil })
		for key, one := range v {
			known := below("properties", key)
			if len(known) == 0 {
				known = below("additionalProperties", "")
			}
			if len(known) == 0 && named {
				found = append(found, at+key+" is not in the document")
			}
			found = append(found, d.strange(at+key+".", one, known)...)
		}
	case []any:
		for _, one := range v {
			found = append(found, d.strange(at, one, below("items", ""))...)
		}
	case string:
		for _, p := range below("contentSchema", "") {
			inner, err := jsonschema.UnmarshalJSON(strings.NewReader(v))
			if err == nil {
				err = d.schemas.MustCompile(d.raw(p, "$ref").(string)).Validate(inner)
			}
			if err != nil {
				found = append(found, fmt.Sprintf("%s: %v", at, err))
			}
			found = append(found, d.strange(at, inner, []place{p})...)
		}
	}
	return found
}

// eachProperty calls for every property of every schema in a tree.
func (d *apiDocument) eachProperty(v any, at string, call func(at string, properties map[string]any, name string)) {
	switch v := v.(type) {
	case map[string]any:
		properties, _ := v["properties"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(properties)) {
			call(at, properties, name)
		}
		for key, one := range v {
			if key != "properties" {
				key = "/" + key
			} else {
				key = ""
			}
			d.eachProperty(one, at+key, call)
		}
	case []any:
		for i, one := range v {
			d.eachProperty(one, fmt.Sprintf("%s/%d", at, i), call)
		}
	}
}

// Examples are what people copy: they are messages of their kind.
func TestAsyncAPIExamples(t *testing.T) {
	d := readAsyncAPI(t)
	count := 0
	for name := range d.child(place{asyncID, d.trees[asyncID]}, "components", "messages").node.(map[string]any) {
		at := d.child(place{asyncID, d.trees[asyncID]}, "components", "messages", name)
		m := d.message(t, at)
		if m.name != name {
			t.Errorf("the message %s has the name %s", name, m.name)
		}
		examples, _ := d.raw(at, "examples").([]any)
		for _, one := range examples {
			count++
			example := one.(map[string]any)
			msg := &nats.Msg{Header: nats.Header{}}
			headers, _ := example["headers"].(map[string]any)
			for header, value := range headers {
				msg.Header[header] = []string{value.(string)}
			}
			if m.isJSON {
				msg.Data, _ = json.Marshal(example["payload"])
			} else {
				msg.Data = []byte(example["payload"].(string))
			}
			if f := d.try(m, msg); f.reason != "" {
				t.Errorf("example %s of %s: %s", example["name"], name, f.reason)
			}
		}
	}
	if count < 15 {
		t.Errorf("only %d examples", count)
	}
}

// traffic is what was said in an account.
type traffic struct {
	mu       sync.Mutex
	messages []*nats.Msg
	wrong    map[string]bool // said wrong on purpose
}

func wrongKey(subject string, data []byte) string { return subject + " " + string(data) }

// count counts the messages for which a condition holds.
func (s *traffic) count(holds func(*nats.Msg) bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, m := range s.messages {
		if holds(m) {
			n++
		}
	}
	return n
}

func (s *traffic) has(kind, subject string) bool {
	return s.count(func(m *nats.Msg) bool { return m.Header.Get(contracts.HeaderType) == kind && m.Subject == subject }) > 0
}

// talk asks for everything that can be asked for.
type talk struct {
	*testing.T
	nc   *nats.Conn
	said *traffic
}

func (k *talk) message(subject, text string, headers []string) *nats.Msg {
	msg := nats.NewMsg(subject)
	msg.Data = []byte(text)
	for i := 0; i < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	return msg
}

// ask returns the one answer.
func (k *talk) ask(subject, text string, headers ...string) *nats.Msg {
	k.Helper()
	reply, err := k.nc.RequestMsg(k.message(subject, text, headers), 20*time.Second)
	if err != nil {
		k.Fatalf("%s %s: %v", subject, text, err)
	}
	return reply
}

// wrongly asks what the document must not take.
func (k *talk) wrongly(subject, text string, headers ...string) *nats.Msg {
	k.Helper()
	k.said.mu.Lock()
	k.said.wrong[wrongKey(subject, []byte(text))] = true
	k.said.mu.Unlock()
	return k.ask(subject, text, headers...)
}

// status asks, and expects a result with that status.
func (k *talk) status(want contracts.Status, subject, text string, headers ...string) contracts.Result {
	k.Helper()
	reply := k.ask(subject, text, headers...)
	var result contracts.Result
	if err := json.Unmarshal(reply.Data, &result); err != nil || result.Status != want {
		k.Errorf("%s %s: %s, want %s", subject, text, reply.Data, want)
	}
	return result
}

// begin asks for many answers, and returns where they come.
func (k *talk) begin(subject, text string, headers ...string) *nats.Subscription {
	k.Helper()
	sub, err := k.nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		k.Fatal(err)
	}
	msg := k.message(subject, text, headers)
	msg.Reply = sub.Subject
	if err := k.nc.PublishMsg(msg); err != nil {
		k.Fatal(err)
	}
	return sub
}

// finish reads answers to their end, and returns the types.
func (k *talk) finish(sub *nats.Subscription) string {
	k.Helper()
	var list []*nats.Msg
	for {
		m, err := sub.NextMsg(30 * time.Second)
		if err != nil {
			k.Fatalf("after %s: %v", types(list), err)
		}
		if len(m.Data) == 0 && len(m.Header) == 0 {
			return types(list)
		}
		list = append(list, m)
	}
}

// queue puts a request into a queue and returns where the copies of its events come.
func (k *talk) queue(subject, text string, headers ...string) *nats.Subscription {
	k.Helper()
	sub, err := k.nc.SubscribeSync(nats.NewInbox())
	if err != nil {
		k.Fatal(err)
	}
	ack := k.ask(subject, text, append(headers, contracts.HeaderReplyTo, sub.Subject)...)
	if !bytes.Contains(ack.Data, []byte(`"stream":"TOOLS_EXEC"`)) {
		k.Fatalf("%s: %s", subject, ack.Data)
	}
	return sub
}

const trafficTools = `
name: greet
version: "2"
description: Says hello.
engine: local
engine_spec: {command: [sh, -c, 'for i in $(seq $ARG_TIMES); do echo "hello $ARG_NAME"; done; cat; echo done >&2']}
parameters:
  - {name: name, required: true, description: Whom to greet.}
  - {name: times, type: integer, default: 1, enum: [1, 2, 3]}
  - {name: tags, type: array}
---
name: greet
version: "1"
engine: local
engine_spec: {command: [echo, hello]}
---
name: anything
engine: local
engine_spec: {command: ["true"]}
`

const trafficConfig = `
nats: {ack_wait: 2, streams: {queue_bytes: 64Mi, reply_bytes: 256Mi, result_bytes: 64Mi, dead_bytes: 16Mi}}
executor: {slots: 4, drain_timeout: 0.2}
execution: {enable_sandboxing: false, result_inline_bytes: 4Ki, max_output_bytes: 128Ki, local: {kill_grace: 0.5}}
policy: {inline_contracts: true, shell: true}
log: {level: debug, format: json}
tools: {directories: [%q]}
`

const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// makeTraffic starts executors, asks them for all that there is, and returns everything that was said in the account.
func makeTraffic(t *testing.T) *traffic {
	s := startNATS(t)
	said := &traffic{wrong: map[string]bool{}}
	// A connection of its own, so that nothing waits for anything. It listens before anybody speaks.
	listener := connectTo(t, s.URL())
	everything, err := listener.Subscribe(">", func(m *nats.Msg) {
		said.mu.Lock()
		defer said.mu.Unlock()
		said.messages = append(said.messages, m)
	})
	if err != nil {
		t.Fatal(err)
	}
	everything.SetPendingLimits(-1, -1)
	if err := listener.Flush(); err != nil {
		t.Fatal(err)
	}
	k := &talk{t, connectTo(t, s.URL()), said}
	config := writeFile(t, "executor.yaml", fmt.Sprintf(trafficConfig, filepath.Dir(writeFile(t, "tools.yaml", trafficTools))))
	first := startServe(t, s.URL(), "--name", "first", "--config", config)

	// Three runs that are silent for long, lose their executor, and are taken over.
	var longs []*nats.Subscription
	for i, begin := range []func(text string) *nats.Subscription{
		func(text string) *nats.Subscription { return k.begin("tools.stream", text, "traceparent", trace) },
		func(text string) *nats.Subscription { return k.begin("tools.stream.local", text, "traceparent", trace) },
		func(text string) *nats.Subscription { return k.queue("tools.exec.local", text, "traceparent", trace) },
	} {
		marker := filepath.Join(t.TempDir(), "started")
		longs = append(longs, begin(shellText(t, fmt.Sprint("long-", i), `echo one; if [ ! -e `+marker+` ]; then touch `+marker+`; exec sleep 60; fi; echo two`, nil)))
	}
	eventually(t, "three tools have said what they say", func() bool {
		return !slices.ContainsFunc(longs, func(long *nats.Subscription) bool { return !said.has(contracts.TypeOutput, long.Subject) })
	})

	k.ends()
	k.elsewhere()
	k.refusals()
	k.queues()
	k.registry()
	k.questions()

	eventually(t, "all are told that it goes on", func() bool {
		return !slices.ContainsFunc(longs, func(long *nats.Subscription) bool { return !said.has(contracts.TypeRunning, long.Subject) })
	})
	following := k.begin("tools.follow", `{"id":"long-0"}`)
	second := startServe(t, s.URL(), "--name", "second", "--config", config)
	first.cmd.Process.Signal(syscall.SIGTERM)
	if code := first.exitCode(); code != 0 {
		t.Errorf("the first ended with %d", code)
	}
	for _, long := range longs {
		got := regexp.MustCompile("(running )+").ReplaceAllString(k.finish(long), "running ") // every five seconds
		if !strings.Contains(got, "started output running retry started output ") || !strings.HasSuffix(got, " result") {
			t.Errorf("a run that was taken over: %s", got)
		}
	}
	// Whom the first had as a follower asks again.
	following.Unsubscribe()
	if got := k.finish(k.begin("tools.follow", `{"id":"long-0"}`)); !strings.HasPrefix(got, "started retry started output ") || !strings.HasSuffix(got, " result") {
		t.Errorf("followed: %s", got)
	}
	second.stop()
	gone := func(name string) bool { // those who read the bucket are told of it as well
		return said.count(func(m *nats.Msg) bool {
			return m.Header.Get("KV-Operation") == "DEL" && m.Subject == "$KV.TOOLS_EXECUTORS."+name
		}) > 0
	}
	eventually(t, "everything was heard", func() bool {
		return said.has(contracts.TypeFinished, "tools.reply.long-0.status") && said.has(contracts.TypeFinished, "tools.reply.long-2.status") &&
			gone("first") && gone("second")
	})
	if err := errors.Join(k.nc.Flush(), listener.Flush(), everything.Drain()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is handled", func() bool { return !everything.IsValid() })
	return said
}

// shellText is a request that runs shell text.
func shellText(t testing.TB, id, text string, more map[string]any) string {
	t.Helper()
	request := map[string]any{"id": id, "contract": map[string]any{"name": "shell", "engine": "local", "engine_spec": map[string]any{"command": text, "shell": true}}}
	maps.Copy(request, more)
	data, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// ends are all the ways in which a tool can end.
func (k *talk) ends() {
	k.status(contracts.Succeeded, "tools.run", `{"id":"one","tool":"greet","version":"2","args":{"name":"you","times":2},"context":{"session":"s"},"stdin":"in","timeout":30,"labels":{"agent":"planner"},"priority":"high"}`, "traceparent", trace)
	k.status(contracts.Succeeded, "tools.run.local", `{"tool":"greet","args":{"name":"you"},"stdin_base64":"/wA="}`)
	k.status(contracts.Failed, "tools.run", shellText(k, "failed", "echo out; echo error >&2; exit 3", nil))
	if r := k.status(contracts.Succeeded, "tools.run", shellText(k, "binary", `printf '\377\000\376'; printf '\377' >&2`, nil)); len(r.StdoutBase64) != 3 || len(r.StderrBase64) != 1 {
		k.Errorf("%+v", r)
	}
	k.status(contracts.Failed, "tools.run", shellText(k, "signalled", "kill -9 $$", nil))
	k.status(contracts.TimedOut, "tools.run", shellText(k, "slow", "echo partial; sleep 60", map[string]any{"timeout": "200ms"}))
	if r := k.status(contracts.Succeeded, "tools.run", shellText(k, "much", "head -c 200000 /dev/zero | tr '\\0' x", nil)); !r.Truncated || r.DroppedBytes == 0 {
		k.Errorf("%+v", r)
	}
	if got := k.finish(k.begin("tools.stream", `{"id":"two","tool":"greet","args":{"name":"all","tags":[1,"x"]},"deadline":"2099-01-01T00:00:00Z","queue_timeout":60}`)); !strings.HasPrefix(got, "accepted started output") {
		k.Errorf("stream: %s", got)
	}
	if got := k.finish(k.begin("tools.stream", `{"id":"two","tool":"greet","args":{"name":"all","tags":[1,"x"]},"deadline":"2099-01-01T00:00:00Z","queue_timeout":60}`)); got != "accepted result" {
		k.Errorf("the same again: %s", got)
	}
	cancelled := k.queue("tools.exec.local", shellText(k, "cancelled", "echo partial; exec sleep 60", nil))
	eventually(k, "the tool runs", func() bool { return k.said.has(contracts.TypeOutput, "tools.reply.cancelled.output") })
	k.ask("tools.cancel.cancelled", "")
	if got := k.finish(cancelled); got != "started output result" {
		k.Errorf("cancelled: %s", got)
	}
}

// elsewhere are runs that another engine takes than was asked for, and a run with a limit over the fleet.
func (k *talk) elsewhere() {
	moved := `{"id":"moved","contract":{"name":"moved","engine":"docker","engine_spec":{"image":"x","command":["true"]},"fallback":[{"engine":"local","engine_spec":{"command":["true"]}}]}}`
	if got := k.finish(k.begin("tools.stream", moved, "traceparent", trace)); got != "accepted fallback started result" {
		k.Errorf("passed on: %s", got)
	}
	if got := k.finish(k.begin("tools.stream.docker", strings.Replace(moved, "moved", "moved-2", 1))); got != "accepted fallback started result" {
		k.Errorf("passed on: %s", got)
	}
	if got := k.finish(k.begin("tools.follow", `{"id":"moved"}`)); got != "fallback started result" {
		k.Errorf("followed: %s", got)
	}
	// From a queue that nobody serves, after the grace; refused in the end, so that the dead letter has the headers of the way.
	if got := k.finish(k.queue("tools.exec.docker", `{"id":"moved-3","contract":{"name":"limited","engine":"docker","engine_spec":{"image":"x","command":["true"]},"fallback":[{"engine":"local","engine_spec":{"command":["true"],"memory_limit":"1Gi"}}]}}`)); !strings.HasSuffix(got, "fallback result") {
		k.Errorf("passed on from a queue: %s", got)
	}
	k.status(contracts.Succeeded, "tools.run", `{"id":"limit","contract":{"name":"few","engine":"local","engine_spec":{"command":["true"]},"concurrency":1}}`)
}

// refusals are all the ways in which a request can be refused.
func (k *talk) refusals() {
	k.status(contracts.Rejected, "tools.run", `{"id":"nobody","tool":"nope"}`)
	k.status(contracts.Rejected, "tools.run", `{"tool":"greet","args":{"name":5}}`)
	k.status(contracts.Rejected, "tools.run", `{"id":"one","tool":"greet","args":{"name":"somebody else"}}`) // id conflict
	k.status(contracts.Unavailable, "tools.run", `{"contract":{"name":"limited","engine":"local","engine_spec":{"command":["true"],"memory_limit":"1Gi"}}}`)
	k.wrongly("tools.run", `{`)
	k.wrongly("tools.run", `{"tool":"greet","arguments":{}}`)
	k.wrongly("tools.run.local", `{"id":"a.b","tool":"greet"}`)
	if got := k.finish(k.begin("tools.stream", `{"tool":"nope"}`)); got != "result" {
		k.Errorf("refused by tools.stream: %s", got)
	}
	// In a queue they become dead letters.
	for _, text := range []string{`no JSON`, `{"tool":"greet","id":"q1"}`} {
		sub, err := k.nc.SubscribeSync(nats.NewInbox())
		if err != nil {
			k.Fatal(err)
		}
		k.wrongly("tools.exec.local", text, contracts.HeaderReplyTo, sub.Subject, contracts.HeaderReply, contracts.ReplyEvents, "traceparent", trace)
		if got := k.finish(sub); got != "result" {
			k.Errorf("%s: %s", text, got)
		}
	}
	k.ask("tools.exec.local", `{"id":"elsewhere","tool":"greet","args":{"name":"you"},"reply_to":"private.place"}`) // policy
	if got := k.finish(k.queue("tools.exec.local", `{"id":"late","tool":"anything","deadline":"2020-01-01T00:00:00Z"}`)); got != "result" {
		k.Errorf("expired: %s", got)
	}
	// The server itself refuses what is too large.
	if ack := k.ask("tools.exec.local", `{"tool":"greet","stdin":"`+strings.Repeat("x", 1_030_000)+`"}`); !bytes.Contains(ack.Data, []byte(`"error"`)) {
		k.Errorf("a large request: %s", ack.Data)
	}
}

// queues are the ways into a queue, and what comes of a full house.
func (k *talk) queues() {
	k.ask("tools.exec.local", `{"tool":"greet","args":{"name":"queue"}}`) // without an id
	eventually(k, "it has run", func() bool {
		return k.said.count(func(m *nats.Msg) bool {
			return strings.HasPrefix(m.Subject, "tools.reply.q") && strings.HasSuffix(m.Subject, ".result") && bytes.Contains(m.Data, []byte("hello queue"))
		}) == 1
	})
	for _, priority := range contracts.Priorities[1:] { // normal, low
		subject := contracts.Subjects.Exec(defaultSubjects(k), "local", priority)
		if got := k.finish(k.queue(subject, `{"id":"`+priority+`","tool":"greet","args":{"name":"x"}}`, nats.MsgIdHdr, priority+".0.local")); !strings.HasSuffix(got, "result") {
			k.Errorf("%s: %s", subject, got)
		}
	}
	if ack := k.ask("tools.exec.local.low", `{"id":"low","tool":"greet","args":{"name":"x"}}`, nats.MsgIdHdr, "low.0.local"); !bytes.Contains(ack.Data, []byte(`"duplicate"`)) {
		k.Errorf("the same publish again: %s", ack.Data)
	}
	to := nats.NewInbox()
	only, err := k.nc.SubscribeSync(to)
	if err != nil {
		k.Fatal(err)
	}
	k.ask("tools.exec.local", `{"id":"only","tool":"greet","args":{"name":"x"},"reply_to":"`+to+`"}`, contracts.HeaderReply, contracts.ReplyResult)
	if m, err := only.NextMsg(10 * time.Second); err != nil || m.Header.Get(contracts.HeaderType) != contracts.TypeResult {
		k.Errorf("the result only: %v, %v", m, err)
	}
	// One slot is left: who takes the last sees others waiting, and tells other executors.
	gate := filepath.Join(k.TempDir(), "gate")
	var waiting []*nats.Subscription
	for i := range 4 {
		waiting = append(waiting, k.queue("tools.exec.local.high", shellText(k, fmt.Sprint("waiting-", i), "while [ ! -e "+gate+" ]; do sleep 0.02; done", nil)))
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		k.Fatal(err)
	}
	for _, one := range waiting {
		k.finish(one)
	}
}

// registry is what operators write there.
func (k *talk) registry() {
	put := func(do func(subject, text string, headers ...string) *nats.Msg, key, text string, headers ...string) {
		k.Helper()
		if ack := do("$KV.TOOLS_CONTRACTS."+key, text, headers...); !bytes.Contains(ack.Data, []byte(`"stream":"KV_TOOLS_CONTRACTS"`)) {
			k.Errorf("%s: %s", key, ack.Data)
		}
	}
	put(k.ask, "shared/1", `{"name":"shared","version":"1","engine":"local","engine_spec":{"command":["echo","shared"]}}`, "Nats-Expected-Last-Subject-Sequence", "0")
	put(k.ask, "gone/_", `{"name":"gone","engine":"local","engine_spec":{"command":["true"]}}`)
	put(k.wrongly, "shared/2", `{"name":"shared","version":"2"}`)
	k.status(contracts.Succeeded, "tools.run", `{"tool":"shared"}`)
	put(k.ask, "gone/_", "", "KV-Operation", "DEL")
	eventually(k, "the wrong one is told of", func() bool {
		return bytes.Contains(k.ask("tools.discover", `{"tool":"shared"}`).Data, []byte(`"refused":[{"name":"shared","version":"2"`))
	})
}

// questions are those to the service.
func (k *talk) questions() {
	for question, want := range map[string]string{
		`{"id":"two"}`:                                        "started output output result",
		`{"id":"two","attempt":1,"from":2}`:                   "started output result",
		`{"id":"two","skip_output":true}`:                     "started result",
		`{"id":"long-0","snapshot":true}`:                     "started output running",
		`{"id":"long-1","snapshot":true,"skip_output":true}`:  "started running",
		`{"id":"never-heard-of","snapshot":true}`:             "running",
		`{"id":"two","snapshot":true,"attempt":1,"from":100}`: "started result",
	} {
		if got := k.finish(k.begin("tools.follow", question)); got != want {
			k.Errorf("%s: %s, want %s", question, got, want)
		}
	}
	k.wrongly("tools.follow", `{"id":"two","form":2}`)
	for _, question := range []string{``, `{}`, `{"tool":"greet"}`, `{"tool":"nope"}`, `{"as":"openai"}`, `{"as":"anthropic","tool":"greet"}`, `{"as":"mcp"}`} {
		if m := k.ask("tools.discover", question); len(m.Header) > 0 {
			k.Errorf("discover %s: %v", question, m.Header)
		}
	}
	k.wrongly("tools.discover", `{"as":"gemini"}`)
	var identity struct{ ID string }
	if err := json.Unmarshal(k.ask("$SRV.PING.executor", "").Data, &identity); err != nil || identity.ID == "" {
		k.Fatal("no id of the service", err)
	}
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		for _, rest := range []string{"", ".executor", ".executor." + identity.ID} {
			k.ask("$SRV."+verb+rest, "")
		}
	}
}

func defaultSubjects(t testing.TB) contracts.Subjects {
	t.Helper()
	s, err := contracts.NewSubjects("")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What the document says about streams, consumers and queue groups is what executors make of an empty server.
func TestAsyncAPIStreams(t *testing.T) {
	s := startNATS(t)
	startServe(t, s.URL())
	nc := connectTo(t, s.URL())
	var document struct {
		Channels   map[string]struct{ Address string }
		Operations map[string]struct {
			Channel struct {
				Ref string `yaml:"$ref"`
			}
			Bindings struct {
				Ref string `yaml:"$ref"`
			}
		}
		Streams map[string]map[string]any `yaml:"x-streams"`
	}
	if err := yaml.Unmarshal(schemas.AsyncAPI(), &document); err != nil {
		t.Fatal(err)
	}
	ask := func(subject string, into any) {
		t.Helper()
		reply, err := nc.Request(subject, nil, 10*time.Second)
		if err == nil {
			err = json.Unmarshal(reply.Data, into)
		}
		if err != nil {
			t.Fatal(subject, err)
		}
	}
	var names struct{ Streams []string }
	ask("$JS.API.STREAM.NAMES", &names)
	if want := slices.Sorted(maps.Keys(document.Streams)); !slices.Equal(slices.Sorted(slices.Values(names.Streams)), want) {
		t.Errorf("there are the streams %q, the document has %q", names.Streams, want)
	}
	for name, says := range document.Streams {
		var info struct{ Config map[string]any }
		ask("$JS.API.STREAM.INFO."+name, &info)
		if info.Config["allow_direct"] != true {
			t.Errorf("%s does not allow direct gets", name)
		}
		for key, want := range says {
			is := info.Config[key]
			switch key {
			case "description", "sizes", "consumers":
				continue
			case "max_age", "duplicate_window":
				is = int(is.(float64) / 1e9)
			}
			if fmt.Sprint(is) != fmt.Sprint(want) {
				t.Errorf("%s: %s is %v, the document says %v", name, key, is, want)
			}
		}
		consumers, _ := says["consumers"].(map[string]any)
		for consumer, says := range consumers {
			var info struct{ Config map[string]any }
			ask("$JS.API.CONSUMER.INFO."+name+"."+strings.ReplaceAll(consumer, "{engine}", "local"), &info)
			for key, want := range says.(map[string]any) {
				if want := strings.ReplaceAll(want.(string), "{engine}", "local"); info.Config[key] != want {
					t.Errorf("consumer %s: %s is %v, the document says %v", consumer, key, info.Config[key], want)
				}
			}
		}
	}
	var service struct {
		Endpoints []struct {
			Subject string
			Group   string `json:"queue_group"`
		}
	}
	ask("$SRV.INFO.executor", &service)
	endpoints := map[string]string{}
	for _, e := range service.Endpoints {
		endpoints[e.Subject] = e.Group
	}
	for name, operation := range document.Operations {
		if operation.Bindings.Ref != "#/components/operationBindings/service" {
			continue
		}
		channel := operation.Channel.Ref[strings.LastIndexByte(operation.Channel.Ref, '/')+1:]
		subject := strings.ReplaceAll(document.Channels[channel].Address, "{engine}", "*")
		if group := endpoints[subject]; group != contracts.DefaultPrefix {
			t.Errorf("operation %s: the service has %s in the queue group %q", name, subject, group)
		}
		delete(endpoints, subject)
	}
	if len(endpoints) > 0 {
		t.Errorf("the service has %v, which the document does not have", endpoints)
	}
}
