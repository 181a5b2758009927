// Package schemas has the JSON Schemas (draft 2020-12) of all documents that cross the bus or are read from files:
// contracts, requests, events, results, the other questions and answers of the service, and the configuration.
//
// They are not the gate of the running program. That is the strict decoders of package contracts and configs.Load,
// because those know line and column, and rules that JSON Schema has no words for: a key given twice, two arguments that
// meet in one variable, a mount below an allowed root. The schemas are the same rules for everybody else: editors, agents
// in other languages, and the reference documentation, whose texts are their descriptions. The tests of this package
// prove that both agree: what the decoders accept the schemas accept, and what only the decoders refuse is a short list
// with reasons.
//
// Unknown keys are errors in contracts, requests, questions and the configuration, and passed over in all that executors
// say, so that fleets can be upgraded one instance at a time. Durations are seconds, sizes bytes.
//
// AsyncAPI is the other half: on which subjects which of these documents are, with which headers, and who says them.
//
// Importing the package costs nothing. Documents are checked by package check.
package schemas

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

// base is what all $id begin with. Schemas refer to each other by it, never by a path.
const base = "https://github.com/praxis-sdk/executor/schemas/"

// extension is what the name of a schema's file has behind the name of the schema.
const extension = ".schema.json"

//go:embed *.schema.json
var files embed.FS

//go:embed asyncapi.yaml
var asyncAPI string

// Names lists the schemas, sorted: configuration, contract, dead-letter and so on.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic("schemas: " + err.Error()) // the files are part of the program
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), extension)
	}
	return names
}

// Text returns a schema as it is in its file, to print or to hand to an editor.
func Text(name string) ([]byte, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("there is no schema %q; there are %s", name, strings.Join(Names(), ", "))
	}
	return files.ReadFile(name + extension)
}

// ID is the $id of a schema, by which other documents refer to it. Nothing need be there.
func ID(name string) string { return base + name + extension }

// AsyncAPI is the AsyncAPI document (3.0, YAML) of all subjects and messages. Its payloads refer to the schemas by $id.
func AsyncAPI() []byte { return []byte(asyncAPI) }
